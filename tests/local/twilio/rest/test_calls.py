import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from bridge.local.twilio.report import Document
from tests.doubles.strict_bridge import PUBLIC, START, StrictBridge
from tests.local.twilio.rest.conftest import ACCOUNT, World, becomes, streaming

OURS, THEIRS = "+15550199", "+15550123"
STRANGER = "CA" + "9" * 32


async def test_a_call_says_what_it_is_doing(world: World) -> None:
    async with world.ringing() as (call, _):
        shown = await world.twilio.ask(lambda client: client.calls(call.report.call_sid).fetch())
        assert (shown.sid, shown.status, shown.direction) == (call.report.call_sid, "in-progress", "inbound")
        assert (shown._from, shown.to, shown.account_sid) == ("+15550100", OURS, ACCOUNT.sid)
        assert abs((datetime.now(UTC) - shown.start_time).total_seconds()) < 5
        assert shown.end_time is None
    shown = await world.twilio.ask(lambda client: client.calls(call.report.call_sid).fetch())
    assert shown.status == "completed"
    assert abs((datetime.now(UTC) - shown.end_time).total_seconds()) < 5
    assert int(shown.duration) < 5


async def test_a_call_can_be_sent_to_another_document(world: World) -> None:
    async with world.ringing() as (call, _):
        sid = call.report.call_sid
        await world.twilio.ask(
            lambda client: client.calls(sid).update(url=f"{PUBLIC}/twilio/voice", method="POST")
        )
        await streaming(call, 2)
    assert [path for path, _ in world.bridge.forms].count("/twilio/voice") == 2
    first, second = call.report.streams
    assert 0 < second.first_frame < 200
    assert first.stream_sid != second.stream_sid
    again = [
        message["media"]
        for message in world.bridge.messages
        if message.get("streamSid") == second.stream_sid and "media" in message
    ]
    assert (again[0]["timestamp"], again[0]["chunk"]) == ("20", "1")


async def test_a_call_can_be_sent_to_a_document_that_is_told_at_once(world: World) -> None:
    async with world.ringing() as (call, task):
        await world.twilio.ask(
            lambda client: client.calls(call.report.call_sid).update(twiml="<Response><Hangup/></Response>")
        )
        report = await task
    assert "before the caller had finished" in report.problem


async def test_a_call_without_a_stream_any_more_goes_on_where_people_are_by_then(world: World) -> None:
    async def cut(ws: Any, message: dict[str, Any]) -> None:
        if message["event"] == "media" and len(world.bridge.upgrades) == 1:
            await ws.close()

    world.bridge.on_message = cut
    async with world.ringing(400) as (call, _):
        async with asyncio.timeout(5):
            await world.bridge.socket_over.wait()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        call.redirect()
        await streaming(call, 2)
        passed = asyncio.get_running_loop().time() - began
    assert 0.1 * 20 * 50 <= call.report.streams[1].first_frame <= passed * 20 * 50 + 20


async def test_a_call_can_be_ended_and_then_nothing_can_be_done_with_it(world: World) -> None:
    async with world.ringing(10_000) as (call, task):
        one = world.twilio.client.calls(call.report.call_sid)
        assert await world.twilio.refused(lambda _: one.update(status="canceled")) == (400, 21220)
        await world.twilio.ask(lambda _: one.update(status="completed"))
        report = await task
        assert await world.twilio.refused(lambda _: one.update(url=PUBLIC)) == (400, 21220)
        assert await world.twilio.refused(lambda _: one.update(status="completed")) == (400, 21220)
    assert report.ok, report.problem
    assert len(report.sent) < 10_000


async def test_the_fallback_saves_a_call_whose_next_document_cannot_be_had(world: World) -> None:
    async with world.ringing() as (call, _):
        await world.twilio.ask(
            lambda client: client.calls(call.report.call_sid).update(
                url="http://127.0.0.1:9/gone", fallback_url=f"{PUBLIC}/original", fallback_method="POST"
            )
        )
        async with asyncio.timeout(5):
            while len(call.report.documents) < 3:
                await asyncio.sleep(0.005)
        assert call.status == "in-progress"
    _, gone, original = call.report.documents
    assert gone.url == "http://127.0.0.1:9/gone"
    assert gone.problem.startswith("11200: no answer")
    assert original == Document(f"{PUBLIC}/original", "")
    told = dict(world.bridge.forms)["/original"]
    assert (told["ErrorCode"], told["ErrorUrl"]) == ("11200", "http://127.0.0.1:9/gone")


async def test_a_call_is_placed_and_answered_by_its_document(world: World) -> None:
    world.api.numbers.add(OURS)
    world.api.calls.line = world.line(50, rings_s=0.05)
    made = await world.twilio.ask(
        lambda client: client.calls.create(
            to=THEIRS,
            from_=OURS,
            url=f"{PUBLIC}/twilio/voice?then=x",
            status_callback=f"{PUBLIC}/progress",
            status_callback_event=["initiated", "ringing", "answered", "completed"],
        )
    )
    call = world.api.calls.known[made.sid]
    assert (made.direction, made._from, made.to) == ("outbound-api", OURS, THEIRS)
    await becomes(call, "completed")
    async with asyncio.timeout(5):
        while [path for path, _ in world.bridge.forms].count("/progress") < 4:
            await asyncio.sleep(0.005)
    told = [form["CallStatus"] for path, form in world.bridge.forms if path == "/progress"]
    assert told == ["initiated", "ringing", "in-progress", "completed"]
    voice = dict(world.bridge.forms)["/twilio/voice"]
    assert (voice["Direction"], voice["CallStatus"], voice["To"]) == ("outbound-api", "in-progress", THEIRS)
    assert call.report.streams[0].frames == 100


async def test_a_placed_call_may_have_its_document_or_an_application(world: World) -> None:
    world.api.numbers.add(OURS)
    application = world.api.applications.add("Desk", voice_url=f"{PUBLIC}/twilio/voice", voice_method="POST")
    world.api.calls.line = world.line(10)
    twiml = START.replace("asr-1", "asr-2")
    either: tuple[dict[str, str], ...] = ({"twiml": twiml}, {"application_sid": application})
    for asked in either:
        place = partial(world.twilio.client.calls.create, to=THEIRS, from_=OURS, **asked)
        made = await asyncio.to_thread(place)
        await becomes(world.api.calls.known[made.sid], "completed")
        assert world.api.calls.known[made.sid].report.streams


@pytest.mark.parametrize(
    "party", ["sip:desk@example.com;transport=tls", "sips:desk@example.com", "client:desk"]
)
async def test_a_call_is_placed_to_somebody_without_a_number(world: World, party: str) -> None:
    world.api.numbers.add(OURS)
    world.api.calls.line = world.line(10)
    made = await world.twilio.ask(
        lambda client: client.calls.create(to=party, from_=OURS, url=f"{PUBLIC}/twilio/voice")
    )
    assert made.to == party
    await becomes(world.api.calls.known[made.sid], "completed")


@pytest.mark.parametrize("outcome", ["busy", "no-answer", "failed"])
async def test_a_placed_call_that_nobody_answers(world: World, outcome: str) -> None:
    world.api.numbers.add(OURS)
    world.api.calls.line = world.line(10, outcome=outcome)
    made = await world.twilio.ask(
        lambda client: client.calls.create(to=THEIRS, from_=OURS, url=f"{PUBLIC}/twilio/voice")
    )
    await becomes(world.api.calls.known[made.sid], outcome)
    assert world.bridge.forms == []


async def test_a_placed_call_that_is_canceled_while_it_rings(world: World) -> None:
    world.api.numbers.add(OURS)
    world.api.calls.line = world.line(10, rings_s=5)
    made = await world.twilio.ask(
        lambda client: client.calls.create(to=THEIRS, from_=OURS, url=f"{PUBLIC}/twilio/voice")
    )
    call = world.api.calls.known[made.sid]
    await becomes(call, "ringing")
    one = world.twilio.client.calls(made.sid)
    assert await world.twilio.refused(lambda _: one.update(url=PUBLIC)) == (400, 21220)
    await world.twilio.ask(lambda _: one.update(status="canceled"))
    await becomes(call, "canceled")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"to": "15550123"}, 21211),
        ({"to": "sip:desk"}, 21211),
        ({"to": ""}, 21201),
        ({"from_": "+15550155"}, 21210),
        ({"from_": "us"}, 21212),
        ({"url": "ftp://x"}, 21205),
        ({"url": ""}, 21205),
        ({"method": "PUT"}, 21403),
        ({"application_sid": "AP" + "1" * 32}, 21218),
        ({"twiml": "<" * 4001}, 32018),
        ({"status_callback": "here"}, 21609),
        ({"status_callback_event": ["answered", "over"]}, 20001),
        ({"timeout": 0}, 20001),
        ({"machine_detection": "Enable"}, 20001),
    ],
)
async def test_a_call_that_cannot_be_placed(world: World, wrong: dict[str, Any], code: int) -> None:
    world.api.numbers.add(OURS)
    world.api.calls.line = world.line(10)
    asked = {"to": THEIRS, "from_": OURS, "url": f"{PUBLIC}/twilio/voice"} | wrong
    assert await world.twilio.refused(lambda client: client.calls.create(**asked)) == (400, code)
    assert world.api.calls.known == {}


async def test_without_a_line_no_call_is_placed(world: World) -> None:
    world.api.numbers.add(OURS)
    asked = {"to": THEIRS, "from_": OURS, "url": PUBLIC}
    assert (await world.twilio.refused(lambda client: client.calls.create(**asked)))[0] == 400


async def test_calls_are_listed_by_what_they_are_doing(world: World) -> None:
    world.api.numbers.add(OURS)
    world.api.calls.line = world.line(10)
    over = [world.api.calls.incoming(OURS) for _ in range(3)]
    for call in over:
        call.status = "completed"
    async with world.ringing() as (call, _):
        sids = [each.report.call_sid for each in reversed(over)]
        listed = await world.twilio.ask(lambda client: client.calls.list(status="completed", page_size=2))
        assert [each.sid for each in listed] == sids
        listed = await world.twilio.ask(lambda client: client.calls.list(status="in-progress"))
        assert [each.sid for each in listed] == [call.report.call_sid]
        assert len(await world.twilio.ask(lambda client: client.calls.list(to=OURS))) == 4
        assert await world.twilio.ask(lambda client: client.calls.list(from_=THEIRS)) == []
        since = datetime(2026, 1, 1, tzinfo=UTC)
        assert (await world.twilio.refused(lambda client: client.calls.list(start_time_after=since)))[
            0
        ] == 400


async def test_a_number_is_called_and_answered_as_its_resource_says(
    world: World, bridge: StrictBridge
) -> None:
    world.api.numbers.add(OURS, voice_url=f"{PUBLIC}/twilio/voice")
    world.api.calls.line = world.line(50)
    report = await world.api.calls.incoming(OURS).run()
    assert report.ok, report.problem
    assert bridge.forms[0][1]["To"] == OURS


@pytest.mark.parametrize("status", [500, 403])
async def test_a_bridge_that_fails_never_takes_a_number_down(
    world: World, bridge: StrictBridge, status: int
) -> None:
    bridge.voice_status = status
    async with StrictBridge.open() as original:
        original.public = original.url
        original.twiml = "<Response><Pause length='1'/></Response>"
        handler = f"{original.url}/desk"
        world.api.numbers.add(OURS, voice_url=f"{PUBLIC}/twilio/voice", voice_fallback_url=handler)
        world.api.calls.line = world.line(500)
        report = await world.api.calls.incoming(OURS).run()
        assert [path for path, _ in original.forms] == ["/desk"]
    assert report.documents[-1].problem == ""
    assert len(report.documents) == 2


async def test_a_bridge_that_answers_too_late_is_one_that_fails(world: World, bridge: StrictBridge) -> None:
    async def slow(*_: object) -> None:
        await asyncio.sleep(1)

    bridge.before_answer = slow
    async with StrictBridge.open() as original:
        original.public = original.url
        original.twiml = "<Response><Hangup/></Response>"
        world.api.numbers.add(
            OURS, voice_url=f"{PUBLIC}/twilio/voice", voice_fallback_url=f"{original.url}/desk"
        )
        world.api.calls.line = world.line(webhook_s=0.1)
        report = await world.api.calls.incoming(OURS).run()
        assert "it took longer than 0.1 s" in report.documents[0].problem
        assert [path for path, _ in original.forms] == ["/desk"]


async def test_a_number_without_a_fallback_is_down_with_its_bridge(
    world: World, bridge: StrictBridge
) -> None:
    bridge.voice_status = 502
    world.api.numbers.add(OURS, voice_url=f"{PUBLIC}/twilio/voice")
    world.api.calls.line = world.line()
    assert "answered 502" in (await world.api.calls.incoming(OURS).run()).problem


async def test_numbers_that_nobody_can_call_here(world: World) -> None:
    world.api.calls.line = world.line()
    with pytest.raises(KeyError):
        world.api.calls.incoming(OURS)
    world.api.numbers.add(OURS, trunk_sid="TK" + "1" * 32)
    with pytest.raises(ValueError, match="a trunk answers"):
        world.api.calls.incoming(OURS)


async def test_strangers_calls_are_not_known(world: World) -> None:
    assert await world.twilio.refused(lambda client: client.calls(STRANGER).fetch()) == (404, 20404)
