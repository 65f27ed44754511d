import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from bridge.call import ending as module
from bridge.local.deliveries import judge
from bridge.local.receiver import Received
from bridge.local.twilio.script import Burst, Hole, Script
from tests.doubles.bridge import running
from tests.doubles.numbered import Connection, NumberedWhisper, speech


def words(events: Sequence[Received], track: str) -> list[str]:
    return [
        w
        for e in events
        if e.type == "transcript.final" and e.data["track"] == track
        for w in e.data["text"].split()
    ]


def numbered(numbers: range) -> list[str]:
    return [f"w{number}" for number in numbers]


def in_order(events: Sequence[Received]) -> None:
    stored = [e for e in events if e.type != "transcript.partial"]
    assert [e.data["sequence"] for e in stored] == list(range(1, len(stored) + 1))
    assert (stored[0].type, stored[-1].type) == ("call.started", "call.ended")
    assert all(e.verified for e in events)


async def test_both_tracks_become_events_in_order(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        audio = {"inbound": speech(range(20)), "outbound": b"\xff" * 1600 + speech(range(50, 62))}
        report = await setup.call(audio, Script(speed=6)).run()
        assert report.ok, report.problem
        events = await setup.ended(report.call_sid)
    in_order(events)
    assert words(events, "inbound") == numbered(range(20))
    assert words(events, "outbound") == numbered(range(50, 62))
    started, ended = events[0].data, events[-1].data
    assert started["tracks"] == ["inbound", "outbound"]
    assert (started["from"], started["to"], started["direction"]) == ("+15550100", "+15550199", "inbound")
    assert started["parameters"] == {}
    assert ended["complete"]
    assert ended["reason"] == "hangup"
    frames = -(-len(audio["inbound"]) // 160)
    assert ended["duration_ms"] == frames * 20
    lines = [(line["start_ms"], line["track"]) for line in ended["transcript"]]
    assert lines == sorted(lines, key=lambda line: line[0])
    assert len(lines) == sum(e.type == "transcript.final" for e in events)
    assert not list((tmp_path / "outbox" / "journal").glob("*"))  # what is finalised is deleted


async def test_finals_lie_where_the_words_were_said(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        report = await setup.call({"inbound": b"\xff" * 8000 + speech(range(40, 44))}, Script(speed=4)).run()
        events = await setup.ended(report.call_sid)
    (final,) = [e.data for e in events if e.type == "transcript.final"]
    assert abs(final["start_ms"] - 1000) <= 10
    assert abs(final["end_ms"] - (1000 + 3 * 260 + 200)) <= 10
    assert [w["word"] for w in final["words"]] == numbered(range(40, 44))
    assert abs(final["words"][2]["start_ms"] - 1520) <= 10
    assert (final["language"], final["suspect"], final["recovered"]) == ("en", [], False)
    assert final["log_prob"] == -0.25


async def test_bursts_and_short_holes_cause_no_gap(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        silent_from = 4 * 260 + 50  # after the first utterance
        script = Script(speed=4, bursts=(Burst(500, 233),), holes=(Hole(silent_from, 300),))
        report = await setup.call({"inbound": speech(range(12))}, script).run()
        events = await setup.ended(report.call_sid)
    in_order(events)
    assert words(events, "inbound") == numbered(range(12))
    assert {e.type for e in events} == {"call.started", "transcript.final", "call.ended"}


async def test_a_long_hole_is_one_gap_with_its_place(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        audio = speech(range(4)) + b"\xff" * 8 * 7000 + speech(range(4, 8))
        hole = Hole(4 * 260 + 460, 6000, track="inbound")
        report = await setup.call({"inbound": audio}, Script(speed=6, holes=(hole,))).run()
        events = await setup.ended(report.call_sid)
    in_order(events)
    (gap,) = [e.data for e in events if e.type == "transcript.gap"]
    assert (gap["track"], gap["reason"]) == ("inbound", "not_received")
    assert abs(gap["start_ms"] - hole.at_ms) <= 20
    assert abs(gap["end_ms"] - (hole.at_ms + 6000)) <= 20
    assert words(events, "inbound") == numbered(range(8))
    later = [e.data for e in events if e.type == "transcript.final"][-1]
    assert abs(later["start_ms"] - (4 * 260 + 400 + 7000)) <= 30


async def test_the_first_sentence_survives_a_slow_whisper(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        whisper.delay_s = [1.5, 0.2]
        audio = {"inbound": speech(range(16)), "outbound": speech(range(30, 38))}
        report = await setup.call(audio, Script(speed=4)).run()
        events = await setup.ended(report.call_sid)
    in_order(events)
    assert words(events, "inbound") == numbered(range(16))
    assert words(events, "outbound") == numbered(range(30, 38))


async def test_words_in_flight_when_whisper_drops_are_recovered_and_say_so(tmp_path: Path) -> None:
    async def fault(number: int, connection: Connection, socket: ServerConnection) -> None:
        if number == 0 and len(connection.pcm) > 50_000:
            socket.transport.abort()

    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        whisper.fault = fault
        report = await setup.call({"inbound": speech(range(16))}, Script(speed=4)).run()
        events = await setup.ended(report.call_sid)
    in_order(events)
    assert words(events, "inbound") == numbered(range(16))
    assert any(e.data["recovered"] for e in events if e.type == "transcript.final")


@pytest.mark.parametrize("ending", ["reset", "stop"])
async def test_the_last_word_is_kept_when_the_caller_hangs_up_in_it(tmp_path: Path, ending: Any) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        script = Script(speed=4, hangup_ms=5 * 260 + 400 + 150, ending=ending)
        report = await setup.call({"inbound": speech(range(12))}, script).run()
        events = await setup.ended(report.call_sid)
    assert words(events, "inbound") == numbered(range(6))
    assert events[-1].data["reason"] == ("hangup" if ending == "stop" else "disconnected")


async def test_partials_are_sent_without_a_sequence_when_asked_for(tmp_path: Path) -> None:
    events_wanted = ["call.started", "transcript.partial", "transcript.final", "call.ended"]
    sections: dict[str, Any] = {"whisper": {"partials": True}, "webhook": {"events": events_wanted}}
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url, **sections) as setup:
        whisper.partials = True
        report = await setup.call({"inbound": speech(range(8))}, Script(speed=3)).run()
        events = await setup.ended(report.call_sid)
    in_order(events)
    partials = [e.data for e in events if e.type == "transcript.partial"]
    assert partials
    assert all("sequence" not in p and p["track"] == "inbound" for p in partials)
    assert len({e.webhook_id for e in events}) == len(events)


async def test_only_what_was_asked_for_is_numbered(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"webhook": {"events": ["transcript.final"]}}
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url, **sections) as setup:
        report = await setup.call({"inbound": speech(range(8))}, Script(speed=4)).run()
        last = await setup.receiver.wait_for(lambda r: r.data.get("sequence") == 2)
    assert last.call_sid == report.call_sid
    assert {e.type for e in setup.receiver.received} == {"transcript.final"}


async def test_what_is_found_after_the_call_ended_is_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_S", 0.5)
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        whisper.delay_s = [3.0]
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        events = await setup.ended(report.call_sid)
        assert not events[-1].data["complete"]
        late = await setup.receiver.wait_for(lambda r: r.type == "transcript.late")
    assert late.data["text"].split() == numbered(range(4))
    assert late.data["sequence"] == events[-1].data["sequence"] + 1


async def test_many_calls_at_once_do_not_mix(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        calls = [setup.call({"inbound": speech(range(n, n + 12))}, Script(speed=2)) for n in range(12)]
        reports = await asyncio.gather(*(call.run() for call in calls))
        for number, report in enumerate(reports):
            events = await setup.ended(report.call_sid)
            in_order(events)
            assert words(events, "inbound") == numbered(range(number, number + 12))
        assert judge(setup.receiver.received).problems == []


async def test_the_transcript_has_finals_that_wait_for_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FINISH_S", 0.3)
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        outbox = setup.bridge._services.outbox
        publish, up = outbox.publish, asyncio.Event()

        async def held(*arguments: Any, **options: Any) -> Any:
            await up.wait()
            return await publish(*arguments, **options)

        monkeypatch.setattr(outbox, "publish", held)
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        await asyncio.sleep(0.6)
        up.set()
        events = await setup.ended(report.call_sid)
    in_order(events)
    (final,) = [e.data["text"] for e in events if e.type == "transcript.final"]
    assert [line["text"] for line in events[-1].data["transcript"]] == [final]
