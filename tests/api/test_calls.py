import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.local.receiver import Received
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.report import CallReport
from bridge.local.twilio.rest import Fault, RestApi
from bridge.local.twilio.rest import Line as Telephone
from bridge.local.twilio.script import Script
from bridge.outbox.outbox import Line
from bridge.twilio import console
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, Setup, running
from tests.doubles.numbered import NumberedWhisper, speech

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ONE, UNKNOWN = "CA" + "1" * 32, "CA" + "2" * 32
ELSEWHERE = "https://voice.example.com/existing"
OURS, THEIRS = "+15550199", "+15550100"


@dataclass
class World:
    """A bridge, Twilio's API, and an operator."""

    setup: Setup
    twilio: RestApi
    session: aiohttp.ClientSession

    async def ask(self, method: str, path: str = "", **body: Any) -> tuple[int, Any]:
        url = f"{self.setup.url}/api/calls{path}"
        async with self.session.request(method, url, json=body or None) as answer:
            return answer.status, await answer.json()

    @asynccontextmanager
    async def talk(self, words: range, **options: Any) -> AsyncIterator[tuple[SimulatedCall, str]]:
        """Two people talk, by somebody else's call flow, and hang up in the end."""
        options.setdefault("handler", Handler(url=ELSEWHERE))
        audio = {"inbound": speech(words)}
        call = self.twilio.add(self.setup.call(audio, Script(speed=4), **options))
        running = asyncio.create_task(call.run())
        try:
            async with asyncio.timeout(5):
                while call.status != "in-progress":
                    await asyncio.sleep(0.01)
            yield call, call.report.call_sid
        finally:
            call.hang_up()
            await running

    def streams(self) -> int:
        """How many streams Twilio was asked for."""
        return sum(
            asked.startswith("POST") and asked.endswith("/Streams.json") for asked in self.twilio.asked
        )


@asynccontextmanager
async def world(directory: Path, whisper_url: str = NOWHERE, **sections: Any) -> AsyncIterator[World]:
    async with RestApi(ACCOUNT) as twilio:
        sections["server"] = {"admin_token": TOKEN, **sections.get("server", {})}
        sections["twilio"] = {**sections.get("twilio", {}), "api_base_url": twilio.url}
        async with (
            running(directory, whisper_url, **sections) as setup,
            aiohttp.ClientSession(headers=BEARER) as session,
        ):
            yield World(setup, twilio, session)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "PAUSES_S", (0.01, 0.01))


def words(events: list[Received]) -> list[str]:
    return [word for e in events if e.type == "transcript.final" for word in e.data["text"].split()]


def numbered(numbers: range) -> list[str]:
    return [f"w{number}" for number in numbers]


async def until(report: CallReport, seconds: float) -> None:
    """Wait until so much of a call was sent."""
    async with asyncio.timeout(10):
        while len(report.sent) * 0.02 < seconds:
            await asyncio.sleep(0.01)


async def test_the_transcript_is_in_the_order_in_which_they_spoke(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        outbox = at.setup.bridge._services.outbox
        lines = [Line(1, "inbound", 2000, 2500, "Yes?"), Line(2, "outbound", 100, 900, "Hello, is this Bob?")]
        await outbox.publish(await outbox.own_call(ONE, "a test", b""), [], {}, lines=lines)
        told = [
            {"track": "outbound", "text": "Hello, is this Bob?", "start_ms": 100, "end_ms": 900},
            {"track": "inbound", "text": "Yes?", "start_ms": 2000, "end_ms": 2500},
        ]
        assert await at.ask("GET", f"/{ONE}/transcript") == (200, {"call_sid": ONE, "transcript": told})
        unknown = {"call_sid": UNKNOWN, "transcript": []}
        assert await at.ask("GET", f"/{UNKNOWN}/transcript") == (200, unknown)


async def test_nobody_without_the_token_is_told_or_heard(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        at.session.headers["Authorization"] = "Bearer wrong"
        for method, path in [
            ("GET", ""),
            ("POST", ""),
            ("GET", f"/{ONE}"),
            ("GET", f"/{ONE}/transcript"),
            ("POST", f"/{ONE}/attach"),
            ("POST", f"/{ONE}/detach"),
        ]:
            assert (await at.ask(method, path))[0] == 401
        assert not at.twilio.asked


@pytest.mark.parametrize(
    "call_sid", ["CA..", "CA", "XX" + "1" * 32, "CA" + "1" * 63, "CA" + "1" * 31 + "%0a"]
)
async def test_what_is_no_call_is_refused_before_anybody_is_asked(tmp_path: Path, call_sid: str) -> None:
    async with world(tmp_path) as at:
        for method, path in [("GET", ""), ("GET", "/transcript"), ("POST", "/attach"), ("POST", "/detach")]:
            status, refusal = await at.ask(method, f"/{call_sid}{path}")
            assert status == 400
            assert "a call's id begins with CA" in refusal["error"]
        assert not at.twilio.asked


async def test_a_call_is_shown_while_it_lives_and_afterwards(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        assert await at.ask("GET") == (200, {"calls": []})
        call = at.setup.call({"inbound": speech(range(24))}, Script(speed=4))
        running = asyncio.create_task(call.run())
        await until(call.report, 2)
        status, told = await at.ask("GET")
        (listed,) = told["calls"]
        behind_s, since = listed.pop("behind_s"), listed["since"]
        assert status == 200
        assert 0 <= behind_s < 2
        expected = {
            "call_sid": call.report.call_sid,
            "state": "live",
            "from": THEIRS,
            "to": OURS,
            "direction": "inbound",
            "stream_sid": call.report.stream_sid,
            "tracks": ["inbound", "outbound"],
            "mode": "start",
            "since": since,
        }
        assert listed == expected
        status, told = await at.ask("GET", f"/{call.report.call_sid}")
        assert (status, told["call"]["state"], told["call"]["gaps"]) == (200, "live", 0)
        await running
        events = await at.setup.ended(call.report.call_sid)
        async with asyncio.timeout(5):
            while len(at.setup.bridge.calls):
                await asyncio.sleep(0.01)
        assert await at.ask("GET") == (200, {"calls": []})
        finals = sum(e.type == "transcript.final" for e in events)
        ended = {**expected, "state": "ended", "behind_s": None, "finals": finals, "gaps": 0}
        status, told = await at.ask("GET", f"/{call.report.call_sid}")
        assert (status, told["call"] | {"since": since}) == (200, ended)


async def test_a_call_that_nobody_knows_is_not_found(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        assert await at.ask("GET", f"/{UNKNOWN}") == (404, {"error": f"Nothing is known of {UNKNOWN}."})


async def test_a_call_in_progress_is_attached_and_its_finals_come(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        async with at.talk(range(40)) as (call, call_sid):
            await asyncio.sleep(0.5)  # they have talked for 2 s of theirs
            status, told = await at.ask("POST", f"/{call_sid}/attach")
            stream_sid = call.report.stream_sid
            first = {"call_sid": call_sid, "stream_sid": stream_sid, "already": False, "arrived": True}
            assert (status, told) == (200, first)
            again = await at.ask("POST", f"/{call_sid}/attach")
            assert again == (200, {**first, "already": True})
            events = await at.setup.ended(call_sid)
        assert at.streams() == 1
    heard = words(events)
    assert 10 < len(heard) < 40
    assert heard == numbered(range(40))[-len(heard) :]
    assert [e.data["sequence"] for e in events] == list(range(1, len(events) + 1))
    started, ended = events[0], events[-1]
    assert (started.type, ended.type, ended.data["reason"]) == ("call.started", "call.ended", "hangup")
    assert (started.data["from"], started.data["to"], started.data["direction"]) == (THEIRS, OURS, "inbound")
    assert ended.data["complete"]
    assert call.report.ok, call.report.problem


async def test_however_many_attach_at_once_there_is_one_stream(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        async with at.talk(range(20)) as (call, call_sid):
            answers = await asyncio.gather(*(at.ask("POST", f"/{call_sid}/attach") for _ in range(10)))
            assert {status for status, _ in answers} == {200}
            assert {told["stream_sid"] for _, told in answers} == {call.report.stream_sid}
            assert sum(not told["already"] for _, told in answers) == 1
        assert at.streams() == 1


async def test_the_settings_of_the_number_hold_for_a_stream_by_hand(tmp_path: Path) -> None:
    numbers = [{"number": OURS, "tracks": "inbound"}]
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url, numbers=numbers) as at:
        async with at.talk(range(8)) as (_, call_sid):
            assert (await at.ask("POST", f"/{call_sid}/attach"))[0] == 200
            assert at.twilio.requests[-1].form["Track"] == "inbound_track"
            events = await at.setup.ended(call_sid)
        assert events[0].data["tracks"] == ["inbound"]


async def test_a_stream_by_hand_only_listens_also_where_the_number_connects(tmp_path: Path) -> None:
    numbers = [{"number": OURS, "mode": "connect"}]
    async with (
        NumberedWhisper() as whisper,
        world(tmp_path, whisper.url, numbers=numbers) as at,
        at.talk(range(40)) as (call, call_sid),
    ):
        assert (await at.ask("POST", f"/{call_sid}/attach"))[0] == 200
        shown = (await at.ask("GET", f"/{call_sid}"))[1]["call"]
        assert (shown["mode"], shown["tracks"]) == ("start", ["inbound"])
        (live,) = at.setup.bridge.calls
        live.cut("disconnected")  # the call flow is somebody else's: it must not be led to ours
        async with asyncio.timeout(5):
            while len(call.report.streams) < 2:
                await asyncio.sleep(0.01)
        assert [document.url for document in call.report.documents] == [ELSEWHERE]


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(status=503, where="Streams", times=2)],
        [Fault(status=429, where="GET", times=2), Fault(status=500, where="Streams")],
        [Fault(drops=True, where="Streams", times=2)],
    ],
)
async def test_twilio_is_asked_again_when_that_may_help(tmp_path: Path, faults: list[Fault]) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        at.twilio.faults.coming += faults
        async with at.talk(range(12)) as (call, call_sid):
            status, told = await at.ask("POST", f"/{call_sid}/attach")
            assert (status, told["arrived"], len(call.report.streams)) == (200, True, 1)
            await at.setup.ended(call_sid)


async def test_a_stream_that_was_started_without_an_answer_is_not_started_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PAUSES_S", (1.0, 1.0))  # it has arrived by then
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        at.twilio.faults.add(Fault(drops=True, afterwards=True, where="Streams"))
        async with at.talk(range(60)) as (call, call_sid):
            status, told = await at.ask("POST", f"/{call_sid}/attach")
            assert (status, told["stream_sid"]) == (200, call.report.stream_sid)
        assert at.streams() == 1


async def test_a_stream_that_does_not_arrive_is_not_called_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "ARRIVES_S", 0.1)
    async with world(tmp_path) as at:
        public_url = "https://somewhere-else.example.com"
        audio = {"inbound": speech(range(8))}
        call = SimulatedCall(
            ACCOUNT,
            "http://127.0.0.1:9/",
            audio,  # type: ignore[arg-type]  # a literal
            public_url=PUBLIC_URL,
            handler=Handler(url=f"{public_url}/x"),
        )
        running = asyncio.create_task(at.twilio.add(call).run())
        async with asyncio.timeout(5):
            while call.status != "in-progress":
                await asyncio.sleep(0.01)
        status, told = await at.ask("POST", f"/{call.report.call_sid}/attach")
        assert (status, told["already"], told["arrived"]) == (200, False, False)
        call.hang_up()
        await running


async def test_what_cannot_be_attached_is_a_sentence(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        status, refusal = await at.ask("POST", f"/{UNKNOWN}/attach")
        assert (status, "does not know the call (404)" in refusal["error"]) == (404, True)
        queued = at.twilio.add(at.setup.call({"inbound": b"\xff" * 800})).report.call_sid
        status, refusal = await at.ask("POST", f"/{queued}/attach")
        assert (status, refusal["error"]) == (409, "Nobody has picked up the call yet (queued).")
        async with at.talk(range(4)) as (_, call_sid):
            at.twilio.faults.add(Fault(status=500, times=None))
            status, refusal = await at.ask("POST", f"/{call_sid}/attach")
            assert (status, refusal["error"][:34]) == (502, "Twilio's REST API answered 500, er")
            at.twilio.faults.clear()
        status, refusal = await at.ask("POST", f"/{call_sid}/attach")
        assert (status, refusal["error"]) == (409, "The call is over (completed).")
        at.setup.bridge.draining = True
        async with at.session.post(f"{at.setup.url}/api/calls/{UNKNOWN}/attach") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert "draining" in (await answer.json())["error"]
        assert not at.streams()


async def test_no_more_calls_are_attached_than_there_is_room_for(tmp_path: Path) -> None:
    async with (
        NumberedWhisper() as whisper,
        world(tmp_path, whisper.url, server={"max_calls": 1}) as at,
        at.talk(range(20)) as one,
        at.talk(range(20)) as two,
        at.talk(range(20)) as three,
    ):
        calls = [one, two, three]
        answers = await asyncio.gather(*(at.ask("POST", f"/{call_sid}/attach") for _, call_sid in calls))
        assert sorted(status for status, _ in answers) == [200, 503, 503]
        refused = next(told["error"] for status, told in answers if status == 503)
        assert "server.max_calls" in refused
        assert sum(len(call.report.streams) for call, _ in calls) == 1


async def test_a_call_of_another_account_is_not_ours_to_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path) as at, at.talk(range(4)) as (call, call_sid):
        stranger = {"sid": call_sid, "account_sid": "AC" + "9" * 32, "status": "in-progress"}
        monkeypatch.setattr(at.twilio.calls, "_as_json", lambda _: stranger)  # as of an account below ours
        status, refusal = await at.ask("POST", f"/{call_sid}/attach")
        assert (status, "another account" in refusal["error"]) == (404, True)
        assert not call.report.streams


async def test_a_detached_call_goes_on_and_is_over_for_us(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        async with at.talk(range(60), handler=None) as (call, call_sid):
            await until(call.report, 4)
            status, told = await at.ask("POST", f"/{call_sid}/detach")
            assert (status, told) == (200, {"call_sid": call_sid, "detached": True})
            events = await at.setup.ended(call_sid)
            assert call.status == "in-progress"
            assert await at.ask("POST", f"/{call_sid}/detach") == (
                200,
                {"call_sid": call_sid, "detached": False},
            )
            status, refusal = await at.ask("POST", f"/{call_sid}/attach")
            assert (status, "transcribed to its end" in refusal["error"]) == (409, True)
            await asyncio.sleep(0.3)  # nobody takes it up again
            assert len(call.report.streams) == 1
        assert call.report.ok, call.report.problem  # it was Twilio that ended the stream, as it was asked to
        assert (await at.ask("GET", f"/{call_sid}"))[1]["call"]["state"] == "ended"
    heard = words(events)
    ended = events[-1].data
    assert (ended["reason"], ended["complete"]) == ("detached", True)
    assert ended["duration_ms"] == pytest.approx(len(call.report.sent) * 20, abs=20)
    assert 0 < len(heard) < 60
    assert heard == numbered(range(60))[: len(heard)]


async def test_detaching_needs_nobody_at_twilio(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        async with at.talk(range(60), handler=None) as (call, call_sid):
            await until(call.report, 2)
            at.twilio.faults.add(Fault(status=503, times=None))
            assert (await at.ask("POST", f"/{call_sid}/detach"))[1]["detached"]
            events = await at.setup.ended(call_sid)
            assert call.status == "in-progress"
        assert events[-1].data["reason"] == "detached"


async def test_what_this_bridge_does_not_have_it_cannot_detach(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        status, refusal = await at.ask("POST", f"/{UNKNOWN}/detach")
        assert (status, refusal["error"]) == (404, "No bridge has transcribed this call.")
        outbox = at.setup.bridge._services.outbox
        await outbox.own_call(ONE, "another", b"", node="another")
        await outbox.beat("another")
        status, refusal = await at.ask("POST", f"/{ONE}/detach")
        assert (status, "ask the one that does" in refusal["error"]) == (409, True)
        assert (await at.ask("GET", f"/{ONE}"))[1]["call"]["state"] == "elsewhere"


async def test_a_dialled_call_is_transcribed_from_its_first_word(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url) as at:
        at.twilio.numbers.add(OURS)
        at.twilio.calls.line = Telephone(
            at.setup.url, PUBLIC_URL, {"inbound": speech(range(20))}, Script(speed=4)
        )
        then = f"{ELSEWHERE}?x=1&y=2"
        status, told = await at.ask("POST", **{"from": OURS, "to": THEIRS, "then": then})
        assert status == 200
        events = await at.setup.ended(told["call_sid"])
        call = at.twilio.calls.known[told["call_sid"]]
        assert [document.url for document in call.report.documents][1:] == [then]
        assert at.twilio.requests[-1].form["FallbackUrl"] == then
    assert words(events) == numbered(range(20))
    started = events[0].data
    assert (started["from"], started["to"], started["direction"]) == (OURS, THEIRS, "outbound-api")
    first = next(e.data for e in events if e.type == "transcript.final")
    assert first["start_ms"] <= 10


async def test_without_a_call_flow_a_dialled_call_goes_where_the_number_says(tmp_path: Path) -> None:
    numbers = [{"number": OURS, "then": ELSEWHERE}]
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url, numbers=numbers) as at:
        at.twilio.numbers.add(OURS)
        at.twilio.calls.line = Telephone(
            at.setup.url, PUBLIC_URL, {"inbound": speech(range(4))}, Script(speed=4)
        )
        _, told = await at.ask("POST", **{"from": OURS, "to": THEIRS})
        await at.setup.ended(told["call_sid"])
        call = at.twilio.calls.known[told["call_sid"]]
        assert [document.url for document in call.report.documents][1:] == [ELSEWHERE]


async def test_in_connect_mode_the_call_flow_comes_after_the_stream(tmp_path: Path) -> None:
    numbers = [{"number": OURS, "mode": "connect", "then": "https://voice.example.com/never"}]
    async with NumberedWhisper() as whisper, world(tmp_path, whisper.url, numbers=numbers) as at:
        at.twilio.numbers.add(OURS)
        at.twilio.calls.line = Telephone(
            at.setup.url, PUBLIC_URL, {"inbound": speech(range(40))}, Script(speed=4)
        )
        _, told = await at.ask("POST", **{"from": OURS, "to": THEIRS, "then": ELSEWHERE})
        call = at.twilio.calls.known[told["call_sid"]]
        await until(call.report, 2)
        assert (await at.ask("POST", f"/{told['call_sid']}/detach"))[1]["detached"]
        async with asyncio.timeout(5):
            while call.report.documents[-1].url != ELSEWHERE:
                await asyncio.sleep(0.01)
        assert call.status == "in-progress"
        events = await at.setup.ended(told["call_sid"])
        assert events[-1].data["reason"] == "detached"
        call.hang_up()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"from": "", "to": THEIRS}, "from must be a telephone number"),
        ({"from": OURS}, "to must be a telephone number"),
        ({"from": "sip:a@b", "to": THEIRS}, "from must be"),
        ({"from": OURS, "to": "5550100"}, "to must be"),
        ({"from": OURS, "to": THEIRS, "then": "ftp://x"}, "then must be a URL"),
        ({"from": OURS, "to": THEIRS, "then": f"{PUBLIC_URL}/twilio/voice?then=x"}, "circles"),
        ({"from": OURS, "to": THEIRS, "twiml": "<Response/>"}, "The body must be"),
        ({"from": OURS, "to": [THEIRS]}, "The body must be"),
        ({"from": OURS, "to": None}, "The body must be"),
    ],
)
async def test_what_cannot_be_dialled_is_a_sentence_without_a_number(
    tmp_path: Path, body: dict[str, Any], words: str
) -> None:
    async with world(tmp_path) as at:
        status, refusal = await at.ask("POST", **body)
        assert (status, words in refusal["error"]) == (400, True)
        assert OURS not in refusal["error"]
        assert THEIRS not in refusal["error"]
        assert not at.twilio.asked


async def test_a_call_that_is_not_placed_is_a_sentence_and_is_tried_once(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        numbers = {"from": OURS, "to": THEIRS}
        status, refusal = await at.ask("POST", **numbers)
        assert (status, "error 21210" in refusal["error"]) == (502, True)
        for fault, sentence in [
            (Fault(status=429), "asked too often (429)."),
            (Fault(status=503), "may have been placed all the same: see Twilio's call log."),
            (Fault(drops=True), "may have been placed all the same: see Twilio's call log."),
        ]:
            at.twilio.faults.add(fault)
            status, refusal = await at.ask("POST", **numbers)
            assert (status, refusal["error"].endswith(sentence)) == (502, True)
        assert len(at.twilio.asked) == 4
        at.setup.bridge.draining = True
        status, refusal = await at.ask("POST", **numbers)
        assert (status, "draining" in refusal["error"]) == (503, True)
        assert len(at.twilio.asked) == 4


async def test_a_burst_of_attaches_is_spread(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        calls = [
            at.twilio.add(at.setup.call({"inbound": b"\xff" * 80_000}, handler=Handler(url=ELSEWHERE)))
            for _ in range(6)
        ]
        running = [asyncio.create_task(call.run()) for call in calls]
        async with asyncio.timeout(5):
            while any(call.status != "in-progress" for call in calls):
                await asyncio.sleep(0.01)
        began = time.monotonic()
        answers = await asyncio.gather(*(at.ask("POST", f"/{call.report.call_sid}/attach") for call in calls))
        assert [status for status, _ in answers] == [200] * 6
        assert time.monotonic() - began >= 0.5
        for call in calls:
            call.hang_up()
        await asyncio.gather(*running)
