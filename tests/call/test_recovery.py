import asyncio
import errno
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from bridge import metrics
from bridge.audio.remains import SEGMENT
from bridge.call import carrier as carrier_module
from bridge.call import ending as ending_module
from bridge.call import lifeline as lifeline_module
from bridge.call import recovery as module
from bridge.call.memo import Memo
from bridge.call.reaper import Reaper
from bridge.local.receiver import Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.script import Script
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.sqlite import Sqlite
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET
from tests.doubles.numbered import speech
from tests.doubles.process import serving
from tests.doubles.world import World, in_order, words


@asynccontextmanager
async def killed_in(
    world: World, *calls: SimulatedCall, after: float = 2.0
) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """A bridge is killed in the middle of these calls, which go on."""
    async with serving(world.around) as bridge:
        await bridge.port()
        tasks = [asyncio.create_task(call.run()) for call in calls]
        for call in calls:
            await world.receiver.wait_for_type("call.started", call_sid=call.report.call_sid)
        await asyncio.sleep(after)
        await bridge.kill()
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_call_that_ended_meanwhile_gets_its_last_finals_and_its_end(world: World) -> None:
    call = world.call(40)
    async with killed_in(world, call):
        call.hang_up()
        while call.status != "completed":
            await asyncio.sleep(0.01)
        killed = [r.type for r in world.receiver.received]
        async with serving(world.around) as bridge:
            events = await world.ended(call)
            assert (await bridge.line("calls_adopted"))["calls"] == 1
            bridge.send(signal.SIGTERM)
            assert await bridge.exit() == 0
    in_order(events)
    heard = words(events)
    assert heard == list(range(len(heard)))
    assert len(heard) * 260 + len(heard) // 4 * 400 >= 1500
    assert events[-1].data["reason"] == "bridge_lost"
    assert events[-1].data["complete"]
    assert killed.count("call.started") == 1
    recovered = [e.data["recovered"] for e in events if e.type == "transcript.final"]
    assert recovered[-1]
    assert recovered == sorted(recovered)
    await world.emptied()
    duration_ms = events[-1].data["duration_ms"]
    for gap in (e.data for e in events if e.type == "transcript.gap"):
        assert gap["start_ms"] == duration_ms
        assert gap["end_ms"] - gap["start_ms"] < 3000  # as far as Twilio's whole seconds tell


async def test_a_call_that_goes_on_is_streamed_again_and_misses_nothing_else(world: World) -> None:
    call = world.call(30, outbound=speech(range(60, 90)))
    async with killed_in(world, call) as (task,):
        killed_at = time.time()
        async with serving(world.around) as bridge:
            await bridge.port()
            await task
            events = await world.ended(call)
            await world.emptied()
    in_order(events)
    first, second = call.report.streams
    again_ms, lost_ms = second.first_frame * 20, sent_ms(call, killed_at)
    for track, base in (("inbound", 0), ("outbound", 60)):
        (gap,) = [e.data for e in events if e.type == "transcript.gap" and e.data["track"] == track]
        assert gap["reason"] == "not_received"
        assert abs(gap["end_ms"] - again_ms) <= 40
        assert lost_ms - 100 <= gap["start_ms"] <= lost_ms
        heard = words(events, track)
        assert heard == sorted(set(heard))
        missing = set(range(base, base + 30)) - set(heard)
        assert missing
        assert missing == set(range(min(missing), max(missing) + 1))
    assert events[-1].data["reason"] == "hangup"
    assert {e.data["stream_sid"] for e in events} == {first.stream_sid, second.stream_sid}
    assert abs(events[-1].data["duration_ms"] - call.duration_ms) <= 40


def sent_ms(call: SimulatedCall, until: float) -> int:
    """Up to where audio had been sent at that time."""
    return sum(at <= until for at in call.report.sent) * 20


async def test_of_a_call_nobody_knows_anything_about_is_given_up_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lifeline_module, "ALONE_S", 1.0)
    monkeypatch.setattr(lifeline_module, "ASK_FIRST_S", 0.2)
    call = await world.left()
    world.twilio.refuse = 404
    began = time.monotonic()
    async with world.bridge():
        events = await world.ended(call)
    assert time.monotonic() - began > 1.0
    in_order(events)
    assert (events[-1].data["reason"], events[-1].data["complete"]) == ("bridge_lost", True)
    assert [e.type for e in events if e.type == "transcript.gap"] == []
    log = capfd.readouterr().out
    assert log.count("call_fate_unknown") == 1
    assert "does not know the call (404)" in log


async def test_a_call_that_goes_on_is_kept_open_and_asked_about_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifeline_module, "ALONE_S", 0.5)
    monkeypatch.setattr(lifeline_module, "ASK_FIRST_S", 0.1)
    monkeypatch.setattr(carrier_module, "IDLE_S", 0.5)
    call = await world.left()
    call.status, ended_at, call.ended_at = "in-progress", call.ended_at, None
    async with world.bridge() as bridge:
        while len(world.twilio.asked) < 4:
            await asyncio.sleep(0.01)
        (kept,) = bridge.calls
        assert kept.waiting
        call.status, call.ended_at = "completed", ended_at
        assert (await world.ended(call))[-1].data["reason"] == "bridge_lost"
    base = f"/2010-04-01/Accounts/{ACCOUNT.sid}/Calls/{call.report.call_sid}"
    assert set(world.twilio.asked) == {f"GET {base}.json", f"POST {base}/Streams.json"}


async def test_what_was_said_until_twilios_end_of_the_call_is_a_gap(world: World) -> None:
    call = await world.left()
    assert call.ended_at is not None
    call.ended_at += 30
    async with world.bridge():
        events = await world.ended(call)
    gaps = [e.data for e in events if e.type == "transcript.gap"]
    assert [gap["track"] for gap in gaps] == ["inbound", "outbound"]
    for gap in gaps:
        assert abs(gap["start_ms"] - events[-1].data["duration_ms"]) <= 20
        assert 25_000 < gap["end_ms"] - gap["start_ms"] < 32_000


async def test_what_was_said_until_the_end_is_told_though_the_next_process_is_killed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await world.left()
    assert call.ended_at is not None
    call.ended_at += 30

    async def down(*_: Any, **__: Any) -> None:
        raise OutboxDown("down")

    with monkeypatch.context() as patch:
        patch.setattr(Sqlite, "publish", down)
        async with world.bridge() as bridge:
            while not all(kept.ending for kept in bridge.calls):
                await asyncio.sleep(0.01)
    async with world.bridge():
        events = await world.ended(call)
    in_order(events)
    assert [e.data["track"] for e in events if e.type == "transcript.gap"] == ["inbound", "outbound"]


async def test_audio_that_cannot_be_opened_now_is_left_to_the_next_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await world.left(12, silent=True)

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.audio.journal.remains.read", refuse)
        async with world.bridge() as bridge:
            events = await world.ended(call)
            while len(bridge.calls):
                await asyncio.sleep(0.01)
    assert not events[-1].data["complete"]
    assert len(world.journals()) == 1
    async with world.bridge() as bridge:
        await world.receiver.wait_for_type("transcript.late")
        while len(bridge.calls):
            await asyncio.sleep(0.01)
    late = [r.data["text"] for r in world.receiver.received if r.type == "transcript.late"]
    assert " ".join(late).split()[:12] == [f"w{number}" for number in range(12)]
    await world.emptied()


async def test_a_memo_that_cannot_be_read_now_costs_no_words(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await world.left()

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("bridge.call.journals.Folder.read", refuse)
        async with world.bridge() as bridge:
            assert len(bridge.calls) == 0
    assert len(world.journals()) == 1
    async with world.bridge():
        in_order(await world.ended(call))


async def test_quiet_audio_that_was_released_is_not_missing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.whisper.watermark.QUIET_S", 2.0)
    call = world.twilio.add(
        SimulatedCall(
            ACCOUNT,
            f"http://127.0.0.1:{world.around.port}/twilio/voice",
            {"inbound": b"\xff" * 8000 * 60},
            Script(speed=16),
            public_url=PUBLIC_URL,
        )
    )
    async with world.bridge() as bridge:
        task = asyncio.create_task(call.run())
        await world.receiver.wait_for_type("call.started")
        (live,) = bridge.calls
        async with asyncio.timeout(10):
            while not live._legs.of("inbound").track.journal.start:
                await asyncio.sleep(0.01)
    call.hang_up()
    await task
    async with world.bridge():
        events = await world.ended(call)
    assert [e.data["reason"] for e in events if e.type == "transcript.gap"] in ([], ["not_received"])
    assert events[-1].data["complete"]


async def test_the_time_for_last_finals_begins_when_it_is_the_calls_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending_module, "FINISH_S", 2.0)
    call = await world.left(12, silent=True)

    catch_up = module.Recovery._catch_up

    async def later(*arguments: Any) -> None:
        await asyncio.sleep(3.0)
        await catch_up(*arguments)

    monkeypatch.setattr(module.Recovery, "_catch_up", later)
    async with world.bridge():
        events = await world.ended(call)
    assert events[-1].data["complete"]
    assert words(events)[:12] == list(range(12))


async def test_a_call_that_waits_for_its_turn_does_not_hold_up_a_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRANSCRIBING", 0)
    call = await world.left(silent=True)
    async with world.bridge() as bridge:
        (kept,) = bridge.calls
        while not kept.ending:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            await bridge.drain(asyncio.Event())
    monkeypatch.setattr(module, "TRANSCRIBING", 1)
    async with world.bridge():
        in_order(await world.ended(call))


async def test_a_call_whose_turn_does_not_come_ends_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending_module, "TURN_S", 0.1)
    monkeypatch.setattr(ending_module, "FINISH_S", 0.1)
    monkeypatch.setattr(module, "TRANSCRIBING", 0)
    call = await world.left(12, silent=True)
    async with world.bridge():
        events = await world.ended(call)
    assert not events[-1].data["complete"]
    assert len(world.journals()) == 1


@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
async def test_a_wall_clock_that_is_set_between_two_processes_moves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    call = await world.left()
    call.status = "in-progress"
    wall = time.time
    monkeypatch.setattr("bridge.serve.time.time", lambda: wall() + step_s)
    async with world.bridge() as bridge:
        (kept,) = bridge.calls
        began = kept.memo.began_monotonic
        assert 0 < time.monotonic() - began < 20
        assert kept._clock.began_at == began
        kept.memo = replace(kept.memo, boot="another")
        kept.folder.write(kept.memo.encode())
    async with world.bridge() as bridge:
        (kept,) = bridge.calls
        assert kept._clock.began_at == pytest.approx(began - step_s, abs=1)


async def test_a_bridge_that_was_stopped_in_a_hurry_leaves_the_rest_to_the_next(world: World) -> None:
    world.whisper.mute = set(range(100))
    call = world.call(200)
    async with serving(world.around) as bridge:
        await bridge.port()
        task = asyncio.create_task(call.run())
        await world.receiver.wait_for_type("call.started")
        await asyncio.sleep(1.5)
        bridge.send(signal.SIGTERM)
        await bridge.line("draining")
        bridge.send(signal.SIGTERM)
        await bridge.line("handing_over")
        await bridge.kill()  # it would wait some seconds for last words
    world.whisper.mute = set()
    async with serving(world.around):
        while len(call.report.streams) < 2 or call.report.streams[-1].frames < 100:
            await asyncio.sleep(0.01)
        call.hang_up()
        await task
        events = await world.ended(call)
    in_order(events)
    assert events[-1].data["reason"] == "hangup"
    assert words(events)[:3] == [0, 1, 2]


async def test_a_call_goes_through_many_lives_and_nothing_is_told_twice(world: World) -> None:
    call = await world.left(12, silent=True)
    world.twilio.refuse = 503
    for _ in range(3):
        async with world.bridge() as bridge:
            (kept,) = bridge.calls
            finals = sum(r.type == "transcript.final" for r in world.receiver.received)
            async with asyncio.timeout(10):
                while sum(r.type == "transcript.final" for r in world.receiver.received) == finals:
                    if not kept.behind_s and finals:
                        break
                    await asyncio.sleep(0.005)
    world.twilio.refuse = None
    async with world.bridge():
        events = await world.ended(call)
    in_order(events)
    heard = words(events)
    assert heard == list(range(len(heard)))
    assert len(heard) >= 12
    assert [e.type for e in events].count("call.started") == 1


async def test_the_tail_of_a_word_that_was_published_is_not_published_again(world: World) -> None:
    world.whisper.early_s = 0.11  # the server ends every word more than half of it too early
    call = world.call(40, Script(speed=2))
    async with world.bridge():
        task = asyncio.create_task(call.run())
        await world.receiver.wait_for_type("transcript.final")
    call.hang_up()
    await task
    world.whisper.early_s = 0.0
    async with world.bridge():
        events = await world.ended(call)
    heard = words(events)
    assert heard == list(range(len(heard)))
    assert len(heard) >= 4


async def test_the_transcript_is_whole_though_nobody_is_told_of_finals(world: World) -> None:
    only_ends = {"webhook": {"events": ["call.started", "call.ended"]}}
    call = world.call(40, Script(speed=2))
    async with world.bridge(**only_ends) as bridge:
        task = asyncio.create_task(call.run())
        await world.receiver.wait_for_type("call.started")
        outbox = bridge._services.outbox
        while len(await outbox.transcript(call.report.call_sid)) < 2:
            await asyncio.sleep(0.01)
    call.hang_up()
    await task
    async with world.bridge(**only_ends):
        events = await world.ended(call)
    assert [e.type for e in events] == ["call.started", "call.ended"]
    said = " ".join(line["text"] for line in events[-1].data["transcript"]).split()
    assert len(said) >= 8
    assert said == [f"w{number}" for number in range(len(said))]


async def test_what_is_found_of_a_call_that_has_its_end_is_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending_module, "FINISH_S", 0.2)
    world.whisper.delay_s = [60.0, 60.0]
    call = world.call(4, Script(speed=4))
    async with world.bridge():
        await call.run()
        events = await world.ended(call)
        assert not events[-1].data["complete"]
    world.whisper.delay_s = []
    async with world.bridge() as bridge:
        late = await world.receiver.wait_for_type("transcript.late")
        while len(bridge.calls):
            await asyncio.sleep(0.01)
    assert late.data["text"].split() == ["w0", "w1", "w2", "w3"]
    assert late.data["sequence"] == events[-1].data["sequence"] + 1
    assert late.data["recovered"]
    assert sum(r.type == "call.ended" for r in world.receiver.received) == 1
    await world.emptied()


async def test_an_erased_call_is_not_transcribed_and_its_audio_removed(world: World) -> None:
    call = await world.left(silent=True)
    world.twilio.refuse = 503
    async with world.bridge() as bridge:
        await bridge._services.outbox.erase(call.report.call_sid)
    assert world.journals()
    sockets = len(world.whisper.connections)
    async with world.bridge() as bridge:
        assert (len(bridge.calls), world.journals()) == (0, [])
    assert len(world.whisper.connections) == sockets


async def test_audio_of_a_call_that_another_process_has_is_told_after_the_calls_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEARCH_S", 0.05)
    monkeypatch.setattr(module, "AGAIN", 1)
    call = await world.left(silent=True)
    world.twilio.refuse = 503

    async def nobody(*_: Any) -> bool:
        return False

    monkeypatch.setattr(
        Reaper, "look", nobody
    )  # the other one works, though this outbox knows of no life of it
    async with world.bridge() as bridge:
        outbox = bridge._services.outbox
        lease = await outbox.own_call(call.report.call_sid, "another", b"")
    async with world.bridge() as bridge:
        outbox = bridge._services.outbox
        lease = await outbox.own_call(call.report.call_sid, "another", b"", only_from="another")
        await asyncio.sleep(0.3)
        assert (len(bridge.calls), len(world.journals())) == (0, 1)
        began = {"inbound.another.begins": 8 * 4 * 260}  # where the other's audio begins: after four words
        await outbox.publish(lease, [], began, ended=True)
        late = await world.receiver.wait_for_type("transcript.late")
        await world.emptied()
    assert late.data["text"].split() == ["w0", "w1", "w2", "w3"]
    assert sum(r.type == "transcript.late" for r in world.receiver.received) == 1


@pytest.mark.parametrize("known", [True, False])
async def test_without_its_memo_a_call_is_what_the_outbox_knows_of_it(world: World, known: bool) -> None:
    call = await world.left()
    (folder,) = world.journals()
    (folder / "memo").write_bytes(b"{}")
    if not known:
        (folder.parent.parent / folder.parent.name / folder.name).rename(
            folder.with_name("CA" + "9" * 32 + ".0123456789abcdef")
        )
    async with world.bridge() as bridge:
        if known:
            events = await world.ended(call)
            in_order(events)
            assert events[-1].data["from"] == "+15550100"
        while len(bridge.calls):
            assert known
            await asyncio.sleep(0.01)
    await world.emptied()


async def test_the_webhook_of_a_call_stays_whatever_the_configuration_says(world: World) -> None:
    call = await world.left()
    async with Receiver(SECRET) as other, world.bridge(webhook={"url": other.url}):
        in_order(await world.ended(call))
        assert other.received == []


async def test_audio_that_cannot_be_read_any_more_is_a_gap(world: World) -> None:
    call = await world.left(60, silent=True)
    (folder,) = world.journals()
    memo = Memo.decode((folder / "memo").read_bytes())
    assert memo is not None
    assert memo.about.call_sid == call.report.call_sid
    (folder / "inbound" / "000001.ulaw").unlink()
    async with world.bridge():
        events = await world.ended(call)
    in_order(events)
    (gap,) = [e.data for e in events if e.data.get("reason") == "journal_unreadable"]
    assert (gap["track"], gap["start_ms"]) == ("inbound", SEGMENT // 8)
    assert gap["end_ms"] == min(2 * SEGMENT // 8, events[-1].data["duration_ms"])
    said = words(events)
    assert said[: SEGMENT // 8 // 360] == list(range(SEGMENT // 8 // 360))


async def test_the_end_of_the_lost_stream_is_not_the_end_of_the_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.twilio.routes.STATUS_GRACE_S", 0.0)
    call = await world.left()
    call.status = "in-progress"
    async with world.bridge() as bridge:
        report = call.report.streams[0]
        form = {
            "CallSid": call.report.call_sid,
            "StreamSid": report.stream_sid,
            "StreamEvent": "stream-error",
        }
        await post(world, "/twilio/stream-status", form)
        await asyncio.sleep(0.05)
        (kept,) = bridge.calls
        assert kept.waiting
        again = await post(world, "/twilio/resume", form | {"AccountSid": ACCOUNT.sid})
        assert "<Stream" in again
        kept.end("test")
        assert "<Stream" not in await post(world, "/twilio/resume", form | {"AccountSid": ACCOUNT.sid})


async def post(world: World, path: str, form: dict[str, str]) -> str:
    headers = {"X-Twilio-Signature": ACCOUNT.signature(PUBLIC_URL + path, form)}
    url = f"http://127.0.0.1:{world.around.port}{path}"
    async with aiohttp.ClientSession() as client, client.post(url, data=form, headers=headers) as answer:
        return await answer.text()


async def test_a_call_that_waits_for_a_stream_does_not_hold_up_a_stop(world: World) -> None:
    call = await world.left()
    call.status = "in-progress"
    async with world.bridge() as bridge:
        began = time.monotonic()
        await bridge.drain(asyncio.Event())
        assert time.monotonic() - began < 3
    assert len(world.journals()) == 1
    call.status = "completed"
    async with world.bridge():
        in_order(await world.ended(call))


async def test_hundreds_of_calls_are_taken_over_quickly_and_catch_up_a_few_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRANSCRIBING", 4)
    call = await world.left()
    (folder,) = world.journals()
    memo = json.loads((folder / "memo").read_bytes())
    for number in range(100):
        call_sid = f"CA{number:032}"
        copy = folder.with_name(f"{call_sid}.{number:016x}")
        shutil.copytree(folder, copy)
        memo["about"]["call_sid"] = call_sid
        (copy / "memo").write_text(json.dumps(memo))
    world.twilio.refuse = 503
    monkeypatch.setattr(lifeline_module, "ALONE_S", 0.0)
    began = time.monotonic()
    async with world.bridge() as bridge:
        assert time.monotonic() - began < 5
        assert len(bridge.calls) > 50  # the first may be over already
        most = 0
        async with asyncio.timeout(60):
            while len(bridge.calls):
                most = max(
                    most, sum(c._legs.may_transcribe.is_set() and c.behind_s > 0 for c in bridge.calls)
                )
                await asyncio.sleep(0.01)
        assert most <= 4
        await world.receiver.wait_for(lambda r: r.call_sid == f"CA{99:032}" and r.type == "call.ended", 30)
    assert sum(r.type == "call.ended" for r in world.receiver.received) == 101
    await world.emptied()
    assert call.report.call_sid in {r.call_sid for r in world.receiver.received}


async def test_while_the_outbox_is_down_streams_wait_for_their_calls_to_be_adopted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_S", 0.1)
    call = await world.left()
    call.status = "in-progress"
    own_call, up = Sqlite.own_call, asyncio.Event()

    async def down(*arguments: Any, **options: Any) -> Any:
        if not up.is_set():
            raise OutboxDown("the disk is away")
        return await own_call(*arguments, **options)

    monkeypatch.setattr(Sqlite, "own_call", down)
    async with world.bridge() as bridge:
        assert len(bridge.calls) == 0
        waiting = asyncio.create_task(bridge.calls.expected(call.report.call_sid))
        await bridge.calls.expected("CA" + "0" * 32)
        assert not waiting.done()
        up.set()
        await waiting
        (kept,) = bridge.calls
        assert kept.about.call_sid == call.report.call_sid


async def test_of_a_call_that_several_dead_processes_had_one_folder_is_adopted_at_a_time(
    world: World,
) -> None:
    async with world.bridge() as bridge:
        journals, recovery, calls = bridge._services.journals, bridge.relay.recovery, bridge.calls
        folders = [journals.folder("CA" + "a" * 32) for _ in range(2)]
        defects = metrics.DEFECTS._value.get()
        first = recovery._adopt_all(folders[:1])
        waiting = asyncio.create_task(calls.expected(folders[0].call_sid))
        await asyncio.sleep(0)
        assert recovery._adopt_all(folders[1:]) == []  # it is tried again later
        await asyncio.wait(first)
        await asyncio.wait_for(waiting, 5)
        assert metrics.DEFECTS._value.get() == defects
