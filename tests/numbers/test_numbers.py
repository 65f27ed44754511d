"""Attaching and detaching against Twilio's double and the real outbox, whoever interferes."""

import asyncio
import contextlib
import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError, ConfigError, UsageError
from bridge.local.twilio.rest.fault import Fault
from bridge.numbers import numbers as module
from bridge.numbers.numbers import Numbers, Outcome
from bridge.outbox.outbox import OutboxDown
from bridge.twilio import rest
from tests.doubles.bridge import PUBLIC_URL
from tests.doubles.exchange import (
    FALLBACK,
    HANDLER,
    OURS,
    Exchange,
    KilledError,
    configured,
    exchange,
    killed,
)

ONE, TWO = "+15550101", "+15550102"
SHOWN = "https://...@voice.example.com/ivr?..."
APPLIED = {"voice_url": "https://app.example.com/in", "voice_method": "GET", "status_callback": FALLBACK}

BEFORE: dict[str, dict[str, Any]] = {
    "a URL": {"voice_url": HANDLER},
    "a URL that is asked with GET": {"voice_url": HANDLER, "voice_method": "GET"},
    "a URL and a fallback": {
        "voice_url": HANDLER,
        "voice_fallback_url": FALLBACK,
        "voice_fallback_method": "GET",
        "status_callback": "https://voice.example.com/status",
        "voice_caller_id_lookup": True,
    },
    "nothing": {},
    "nothing, asked with GET": {"voice_method": "GET", "voice_fallback_method": "GET"},
    "an application": {"voice_application_sid": "AP", "voice_url": HANDLER, "status_callback_method": "GET"},
}


@pytest.fixture(autouse=True)
def _no_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes do not wait for their turns."""
    monkeypatch.setattr(rest, "WRITES_PER_S", 10_000)


def bought(house: Exchange, number: str, fields: dict[str, Any]) -> None:
    if "voice_application_sid" in fields:
        fields = {**fields, "voice_application_sid": house.api.applications.add("ivr", **APPLIED)}
    house.api.numbers.add(number, **fields)


async def attached(house: Exchange, number: str) -> str:
    (found,) = (each for each in await house.numbers.every() if each.number == number)
    return found.attached


@pytest.mark.parametrize("fields", BEFORE.values(), ids=BEFORE)
async def test_what_twilio_has_after_detach_is_what_it_had(tmp_path: Path, fields: dict[str, Any]) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, fields)
        before = house.api.numbers.snapshot()
        done = await house.numbers.attach(ONE)
        assert (done.error, done.did[:8]) == ("", "attached")
        assert house.has(ONE)["voice_url"] == OURS
        assert not house.has(ONE)["voice_application_sid"]
        (memory,) = await house.outbox.attached()
        assert (await house.numbers.attach(ONE)).did == "is attached already"
        assert [memory] == await house.outbox.attached()
        assert (await house.numbers.detach(ONE)).did == "detached: it is as it was before"
        assert house.api.numbers.snapshot() == before
        assert await attached(house, ONE) == "no"
        assert (await house.numbers.detach(ONE)).did == "is not attached"


@pytest.mark.parametrize(
    ("fields", "flow", "fallback"),
    [
        (BEFORE["a URL"], (HANDLER, "POST"), (HANDLER, "POST")),
        (BEFORE["a URL that is asked with GET"], (HANDLER, "GET"), (HANDLER, "GET")),
        (BEFORE["a URL and a fallback"], (HANDLER, "POST"), (HANDLER, "POST")),
        (BEFORE["nothing"], ("", "POST"), ("", "POST")),
        (BEFORE["an application"], (APPLIED["voice_url"], "GET"), (APPLIED["voice_url"], "GET")),
    ],
)
async def test_the_call_flow_and_the_fallback_are_what_handled_calls(
    tmp_path: Path, fields: dict[str, Any], flow: tuple[str, str], fallback: tuple[str, str]
) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, fields)
        await house.numbers.attach(ONE)
        (memory,) = await house.outbox.attached()
        assert (memory.number, memory.then, memory.then_method) == (ONE, *flow)
        has = house.has(ONE)
        assert (has["voice_fallback_url"], has["voice_fallback_method"]) == fallback
        assert (has["voice_url"], has["voice_method"]) == (OURS, "POST")
        heard = house.api.numbers.of(ONE)["status_callback"]
        assert heard == (FALLBACK if "voice_application_sid" in fields else fields.get("status_callback", ""))


async def test_then_replaces_the_handler_and_can_be_changed(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        for then in ("https://a.example.com/x", "https://b.example.com/y?z=1", ""):
            done = await house.numbers.attach(ONE, then)
            assert not done.error
            flow = then or "https://b.example.com/y?z=1"  # without --then what is there stays
            assert house.has(ONE)["voice_fallback_url"] == flow
            (memory,) = await house.outbox.attached()
            assert memory.then == flow
        await house.numbers.detach(ONE)
        assert house.api.numbers.snapshot() == before


async def test_a_trunk_is_explained_and_nothing_changes(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add(ONE, trunk_sid="TK" + "1" * 32, voice_url=HANDLER)
        before = house.api.numbers.snapshot()
        told = (await house.numbers.attach(ONE)).error
        assert "its calls go to the trunk TK111" in told
        assert (house.api.numbers.snapshot(), await house.outbox.attached()) == (before, [])


async def test_a_part_of_a_number_is_not_the_number(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add("+155501019", voice_url=HANDLER)
        before = house.api.numbers.snapshot()
        assert (await house.numbers.attach("+15550101")).error == "the account has no such number"
        assert (await house.numbers.detach("+15550101")).error == "the account has no such number"
        assert house.api.numbers.snapshot() == before


async def test_a_number_is_not_remembered_as_its_own_original(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add(ONE, voice_url=OURS)
        before = house.api.numbers.snapshot()
        assert await attached(house, ONE) == "by hand"
        assert (await house.numbers.attach(ONE)).did.startswith("leads here already, but not by this command")
        assert "what it did before is not known" in (await house.numbers.detach(ONE)).error
        assert (house.api.numbers.snapshot(), await house.outbox.attached()) == (before, [])
        assert (await house.numbers.attach(ONE, FALLBACK)).did.startswith("attached")
        await house.numbers.detach(ONE)
        assert house.has(ONE)["voice_url"] == FALLBACK


async def test_an_application_that_leads_here_needs_a_call_flow(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        sid = house.api.applications.add("ours", voice_url=OURS)
        house.api.numbers.add(ONE, voice_application_sid=sid)
        assert f"its application {sid} leads here already" in (await house.numbers.attach(ONE)).error
        assert (await house.numbers.attach(ONE, HANDLER)).did.startswith("attached")
        await house.numbers.detach(ONE)
        assert house.has(ONE)["voice_application_sid"] == sid


async def test_an_application_that_is_gone(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add(ONE, voice_application_sid="AP" + "9" * 32)
        assert "does not know the number's application (404)" in (await house.numbers.attach(ONE)).error
        assert await house.outbox.attached() == []


CHANGES: dict[str, dict[str, Any]] = {
    "voice_url and voice_method": {"voice_url": "https://x.example.com/?key=7", "voice_method": "GET"},
    "voice_fallback_url": {"voice_fallback_url": "https://x.example.com/?key=7"},
    "voice_application_sid": {"voice_application_sid": "AP" + "5" * 32},
    "trunk_sid": {"trunk_sid": "TK" + "5" * 32},
}


@pytest.mark.parametrize("names", CHANGES)
@pytest.mark.parametrize("fields", BEFORE.values(), ids=BEFORE)
async def test_what_somebody_changed_is_not_overwritten_but_by_force(
    tmp_path: Path, names: str, fields: dict[str, Any]
) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, fields)
        before = house.api.numbers.snapshot()
        await house.numbers.attach(ONE)
        house.api.numbers.of(ONE).update(CHANGES[names])
        changed = house.api.numbers.snapshot()
        (listed,) = await house.numbers.every()
        assert (listed.attached, " and ".join(listed.changed)) == ("changed", names)
        told = (await house.numbers.detach(ONE)).error
        assert f"{names} w" in told
        assert "example.com" not in told
        assert house.api.numbers.snapshot() == changed
        assert (await house.numbers.detach(ONE, force=True)).did == "detached: it is as it was before"
        assert house.api.numbers.snapshot() == before


async def test_other_fields_are_nobody_s_business(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        await house.numbers.attach(ONE)
        meanwhile = {"status_callback": "https://new.example.com/", "sms_url": HANDLER, "friendly_name": "x"}
        house.api.numbers.of(ONE).update(meanwhile)
        assert await attached(house, ONE) == "yes"
        assert not (await house.numbers.detach(ONE)).error
        assert house.api.numbers.of(ONE).items() >= meanwhile.items()


@pytest.mark.parametrize("names", ["voice_url and voice_method", "voice_application_sid"])
@pytest.mark.parametrize("fields", BEFORE.values(), ids=BEFORE)
async def test_attached_again_what_somebody_changed_is_the_original(
    tmp_path: Path, names: str, fields: dict[str, Any]
) -> None:
    """Their change stays, and of the rest what was there at first."""
    async with exchange(tmp_path) as house:
        bought(house, ONE, fields)
        application = house.api.applications.add("new", voice_url="https://new.example.com/")
        change = dict(CHANGES[names])
        if "voice_application_sid" in change:
            change["voice_application_sid"] = application
        first = house.has(ONE)
        wanted = first | change
        if "voice_url" in change:  # who sets a URL wants no application instead
            wanted["voice_application_sid"] = ""
        await house.numbers.attach(ONE)
        house.api.numbers.of(ONE).update(change)
        done = await house.numbers.attach(ONE)
        assert (done.error, await attached(house, ONE)) == ("", "yes")
        assert house.has(ONE)["voice_url"] == OURS
        await house.numbers.detach(ONE)
        assert house.has(ONE) == wanted


async def test_a_fallback_that_somebody_changed_is_not_overwritten(tmp_path: Path) -> None:
    """Nor can it be the original: it was set while the number led here."""
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        await house.numbers.attach(ONE)
        house.api.numbers.of(ONE)["voice_fallback_url"] = "https://x.example.com/"
        changed = house.api.numbers.snapshot()
        for then in ("", FALLBACK):
            told = (await house.numbers.attach(ONE, then)).error
            assert (
                told == "voice_fallback_url was changed since it was attached: detach it with --force first"
            )
        assert house.api.numbers.snapshot() == changed
        assert not (await house.numbers.detach(ONE, force=True)).error
        assert house.api.numbers.snapshot() == before


async def test_what_is_set_after_detach_is_the_next_original(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["an application"])
        await house.numbers.attach(ONE)
        await house.numbers.detach(ONE)
        new = {"voice_application_sid": "", "voice_url": FALLBACK, "voice_fallback_url": APPLIED["voice_url"]}
        house.api.numbers.of(ONE).update(new)
        before = house.api.numbers.snapshot()
        assert await attached(house, ONE) == "no"
        assert (await house.numbers.detach(ONE)).did == "is not attached"
        assert f"its calls go on to {FALLBACK}" in (await house.numbers.attach(ONE)).did
        await house.numbers.detach(ONE)
        assert house.api.numbers.snapshot() == before


async def test_a_bridge_that_moved_is_no_original_either(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        await house.numbers.attach(ONE, "https://a.example.com/x")
        house.config = configured(house.api, public_url="https://new.example.com/up")
        assert await attached(house, ONE) == "yes"
        assert not (await house.numbers.attach(ONE)).error
        assert house.has(ONE)["voice_url"] == "https://new.example.com/up/twilio/voice"
        (memory,) = await house.outbox.attached()
        assert memory.then == "https://a.example.com/x"
        house.config = configured(house.api)
        await house.numbers.detach(ONE)
        assert house.api.numbers.snapshot() == before


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize(("way", "changes"), [("attach", 2), ("detach", 2), ("attach anew", 3)])
async def test_killed_at_any_step_it_is_repeated_or_undone(
    tmp_path: Path, way: str, changes: int, done: bool
) -> None:
    """After each change, and before it: nothing is lost, and both commands lead to where they should."""
    async with exchange(tmp_path) as house:
        for at, fields in enumerate(BEFORE.values()):
            number = f"+1555020{at}"
            bought(house, number, fields)
            before = house.api.numbers.snapshot()
            for step, ending in itertools.product(range(changes + 1), ("detach", "attach")):
                if way != "attach":
                    await house.numbers.attach(number)
                with killed(step, done=done) as hit:
                    with contextlib.suppress(KilledError):
                        if way == "detach":
                            await house.numbers.detach(number)
                        else:
                            await house.numbers.attach(number, "" if way == "attach" else FALLBACK)
                    assert hit() is (step < changes)
                if ending == "attach":
                    assert not (await house.numbers.attach(number)).error
                    assert await attached(house, number) == "yes"
                    assert house.has(number)["voice_url"] == OURS
                assert not (await house.numbers.detach(number)).error
                assert house.api.numbers.snapshot() == before
                assert await attached(house, number) == "no"


async def test_a_change_whose_answer_is_lost(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL"])
        before = house.api.numbers.snapshot()
        house.api.faults.add(Fault(where="POST ", drops=True, afterwards=True))
        assert "cannot be reached" in (await house.numbers.attach(ONE)).error
        assert await attached(house, ONE) == "yes"
        house.api.faults.add(Fault(where="POST ", status=500))
        assert "answered 500" in (await house.numbers.detach(ONE)).error
        assert await attached(house, ONE) == "yes"
        assert not (await house.numbers.detach(ONE)).error
        assert house.api.numbers.snapshot() == before


async def test_an_interrupted_attach_is_listed_as_half(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL"])
        with killed(1, done=False), pytest.raises(KilledError):
            await house.numbers.attach(ONE)
        assert await attached(house, ONE) == "half"
        assert not (await house.numbers.detach(ONE)).error
        assert await attached(house, ONE) == "no"


@pytest.mark.parametrize("first", ["attach", "detach"])
@pytest.mark.parametrize("second", ["attach", "detach"])
@pytest.mark.parametrize("begun", [False, True], ids=["fresh", "attached"])
async def test_two_operators_at_once(tmp_path: Path, first: str, second: str, begun: bool) -> None:
    """The second does all of its work while the first is held up, before or after each of its changes of Twilio."""
    holds: list[dict[str, Any]] = [
        {"where": "POST /"},
        {"where": "POST /", "afterwards": True},
        {"where": "GET /"},
    ]
    for hold in holds:
        async with exchange(tmp_path / str(len(hold)) / hold["where"][:3]) as house:
            bought(house, ONE, BEFORE["a URL and a fallback"])
            before = house.api.numbers.snapshot()
            if begun:
                await house.numbers.attach(ONE)
            released = asyncio.Event()
            fault = house.api.faults.add(Fault(released=released, **hold))
            slow = asyncio.create_task(getattr(house.numbers, first)(ONE))
            met = asyncio.create_task(fault.met.wait())
            await asyncio.wait([slow, met], return_when=asyncio.FIRST_COMPLETED)
            met.cancel()
            house.api.faults.clear()  # a first one that had nothing to change
            await getattr(house.numbers, second)(ONE)
            released.set()
            await slow
            if await attached(house, ONE) != "no":
                assert not (await house.numbers.attach(ONE)).error
                assert await attached(house, ONE) == "yes"
                assert not (await house.numbers.detach(ONE)).error
            assert house.api.numbers.snapshot() == before
            assert await attached(house, ONE) == "no"


@pytest.mark.parametrize("afterwards", [False, True])
async def test_two_that_attach_it_to_different_handlers_are_told(tmp_path: Path, *, afterwards: bool) -> None:
    """What Twilio has and what is remembered may be of different operators then: one of them hears of it."""
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        released = asyncio.Event()
        fault = house.api.faults.add(Fault(where="POST /", released=released, afterwards=afterwards))
        slow = asyncio.create_task(house.numbers.attach(ONE))
        await fault.met.wait()
        assert not (await house.numbers.attach(ONE, FALLBACK)).error
        released.set()
        assert "changed it at the same moment" in (await slow).error
        assert not (await house.numbers.detach(ONE, force=True)).error
        assert house.api.numbers.snapshot() == before


async def test_who_writes_last_leaves_nothing_of_the_others(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        await house.numbers.attach(ONE, FALLBACK)
        released = asyncio.Event()
        fault = house.api.faults.add(Fault(where="POST /", released=released))
        slow = asyncio.create_task(house.numbers.detach(ONE))
        await fault.met.wait()  # it has read the number, whose fallback is now changed
        assert not (await house.numbers.attach(ONE, HANDLER)).error
        released.set()
        assert not (await slow).error
        assert house.api.numbers.snapshot() == before


async def test_one_that_detaches_is_told_that_it_is_not_as_it_was(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL that is asked with GET"])
        await house.numbers.attach(ONE)
        released = asyncio.Event()
        fault = house.api.faults.add(Fault(where="POST /", released=released, afterwards=True))
        slow = asyncio.create_task(house.numbers.detach(ONE))
        await fault.met.wait()
        house.api.numbers.of(ONE)["voice_fallback_url"] = FALLBACK
        released.set()
        assert "changed it at the same moment" in (await slow).error


@pytest.mark.parametrize("seed", range(3))
async def test_many_operators_and_one_of_them_is_killed(tmp_path: Path, seed: int) -> None:
    """Whatever they do at the same time, the number can be detached, and is what it was."""
    chance = random.Random(seed)
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        house.api.faults.add(Fault(times=None, rate=0.5, delay_s=0.002))
        for _ in range(20):
            operators = [
                house.numbers.attach(ONE),
                house.numbers.detach(ONE),
                house.numbers.attach(ONE, FALLBACK),
                house.numbers.detach(ONE, force=True),
            ]
            with killed(chance.randrange(8), done=chance.random() < 0.5):
                done = await asyncio.gather(*operators, return_exceptions=True)
            assert all(isinstance(each, Outcome | KilledError) for each in done)
            assert not (await house.numbers.detach(ONE, force=True)).error
            assert house.api.numbers.snapshot() == before


async def test_the_list_tells_what_each_does(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL"])
        bought(house, TWO, BEFORE["an application"])
        house.api.numbers.add("+15550103", trunk_sid="TK" + "1" * 32)
        house.api.numbers.add("+15550104")
        sid = house.api.numbers.add("+15550105", voice_url=HANDLER)
        await house.numbers.attach(ONE)
        await house.numbers.attach("+15550105")
        del house.api.numbers.known[sid]
        told = [
            (each.number[-1], each.handled_by, each.where, each.attached, each.then)
            for each in await house.numbers.every()
        ]
        assert told == [
            ("1", "url", OURS, "yes", SHOWN),
            ("2", "application", house.has(TWO)["voice_application_sid"], "no", ""),
            ("3", "trunk", "TK" + "1" * 32, "no", ""),
            ("4", "nothing", "", "no", ""),
            ("5", "gone", "", "yes", SHOWN),
        ]
        told_so = (await house.numbers.detach("+15550105")).error
        assert told_so == "the account has no such number; it was attached, and --force forgets that"
        assert (await house.numbers.detach("+15550105", force=True)).did.startswith("forgotten")
        assert [each.number for each in await house.outbox.attached()] == [ONE]


async def test_a_dry_run_changes_nothing_and_shows_no_secret(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL and a fallback"])
        before = house.api.numbers.snapshot()
        told = await house.numbers.attach(ONE, dry_run=True)
        assert (told.did, told.error) == (f"would be attached; its calls go on to {SHOWN}", "")
        assert told.changes == [
            f"voice_url: {SHOWN} -> {OURS}",
            f"voice_fallback_url: {FALLBACK} -> {SHOWN}",
            "voice_fallback_method: GET -> POST",
        ]
        assert (house.api.numbers.snapshot(), await house.outbox.attached()) == (before, [])
        await house.numbers.attach(ONE)
        after = house.api.numbers.snapshot()
        told = await house.numbers.detach(ONE, dry_run=True)
        assert told.did == "would be detached"
        assert f"voice_url: {OURS} -> {SHOWN}" in (told.changes or [])
        assert house.api.numbers.snapshot() == after
        assert len(await house.outbox.attached()) == 1


@pytest.mark.parametrize(
    "number", ["15550101", "+0555", "+1555x", "", "+1 555 0101", "sip:a@example.com", "*"]
)
async def test_what_is_no_number(tmp_path: Path, number: str) -> None:
    async with exchange(tmp_path) as house:
        for work in (house.numbers.attach, house.numbers.detach):
            with pytest.raises(UsageError, match=r"A number is written with \+"):
                await work(number)
        assert house.api.asked == []


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (f"{PUBLIC_URL}/twilio/voice", "leads back to this bridge"),
        (f"{PUBLIC_URL}:443/twilio/resume?n=1", "leads back to this bridge"),
        ("ftp://example.com", "^then must be a URL such as"),
        ("flow.xml", "^then must be a URL such as"),
    ],
)
async def test_what_cannot_be_the_call_flow(tmp_path: Path, then: str, words: str) -> None:
    async with exchange(tmp_path) as house:
        with pytest.raises(UsageError, match=words):
            await house.numbers.attach(ONE, then)
        assert house.api.asked == []


async def test_twilio_is_led_to_https_only(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add(ONE, voice_url=HANDLER)
        for url in ("", "http://bridge.example.com"):
            house.config = configured(house.api, public_url=url)
            with pytest.raises(ConfigError, match=r"server\.public_url must be the https:// address"):
                await house.numbers.attach(ONE)
        house.config = configured(house.api, public_url="http://127.0.0.1:8080")
        assert not (await house.numbers.attach(ONE)).error
        real = house.config.model_copy(
            update={"twilio": house.config.twilio.model_copy(update={"api_base_url": ""})}
        )
        with pytest.raises(ConfigError, match=r"server\.public_url"):
            await Numbers(real, house.outbox, house.rest).attach(ONE)


async def test_the_outbox_fails_or_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTBOX_S", 0.05)
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL"])
        before = house.api.numbers.snapshot()

        async def down(*_: object) -> None:
            raise OutboxDown("no room")

        async def silent(*_: object) -> None:
            await asyncio.Event().wait()

        for fault, words in ((down, "no room"), (silent, "the outbox did not answer within 0 s")):
            monkeypatch.setattr(house.outbox, "attach", fault)
            assert (await house.numbers.attach(ONE)).error == words
            assert house.api.numbers.snapshot() == before
            monkeypatch.setattr(house.outbox, "attached", fault)
            with pytest.raises(BridgeError, match=words):
                await house.numbers.every()
            monkeypatch.undo()
            monkeypatch.setattr(module, "OUTBOX_S", 0.05)


async def test_a_memory_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        bought(house, ONE, BEFORE["a URL"])
        await house.numbers.attach(ONE)
        (memory,) = await house.outbox.attached()
        await house.outbox.detach(memory.number_sid)
        await house.outbox.attach(type(memory)(memory.number_sid, ONE, b"\x00newer", "", "POST"))
        after = house.api.numbers.snapshot()
        for work in (house.numbers.attach, house.numbers.detach):
            assert "a newer version attached it" in (await work(ONE)).error
        assert house.api.numbers.snapshot() == after
