import asyncio
import json

import pytest

from bridge.call import reaper as module
from tests.doubles.world import World, in_order, words


async def test_a_call_that_another_process_took_is_let_go_without_an_event(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid = call.report.call_sid
        outbox, reaper = bridge._services.outbox, bridge.relay.reaper
        await reaper.beat()
        assert bridge.calls.get(call_sid)
        await outbox.own_call(call_sid, "another", b"", node="b")
        told = len(world.receiver.received)
        await reaper.beat()
        async with asyncio.timeout(5):
            while bridge.calls.get(call_sid) or not call.report.streams[0].closed_by_bridge:
                await asyncio.sleep(0.01)
        assert call.report.streams[0].close_code == 1001
        assert not bridge.calls.has_ended(call_sid)  # it may come back to this process
        assert len(world.journals()) == 1
    assert "call.ended" not in {r.type for r in world.receiver.received[told:]}


async def test_a_call_without_audio_here_is_taken_from_a_dead_node_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPREAD_S", 0.0)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid = call.report.call_sid
        outbox, reaper = bridge._services.outbox, bridge.relay.reaper
        (lost,) = bridge.calls
        await lost.abandon()
        for folder in world.journals():
            folder.rename(world.around.directory / folder.name)  # on a machine of its own
        settled = (await outbox.own_call(call_sid, "another", b"", node="dead")).watermarks
        bridge.calls._ended.clear()
        await reaper.look(0.0)
        async with asyncio.timeout(10):
            while len(call.report.streams) < 2 or call.report.streams[1].frames < 150:
                await asyncio.sleep(0.01)
        call.hang_up()
        events = await world.ended(call)
    in_order(events)
    gaps = [r.data for r in events if r.type == "transcript.gap"]
    assert settled["inbound"] > 0
    assert [(gap["track"], gap["start_ms"]) for gap in gaps] == [
        ("inbound", settled["inbound"] // 8),
        ("outbound", settled.get("outbound", 0) // 8),
    ]
    for gap in gaps:
        assert abs(gap["end_ms"] - call.report.streams[1].first_frame * 20) <= 100
    heard = words(events)
    assert heard == sorted(set(heard))
    assert events[-1].data["complete"]


async def test_a_call_that_is_over_gets_its_end_from_whoever_finds_it(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        (lost,) = bridge.calls
        await lost.abandon()
    call.hang_up()
    for folder in world.journals():
        folder.rename(world.around.directory / folder.name)
    async with world.bridge():
        events = await world.ended(call)
    in_order(events)
    assert events[-1].data["reason"] == "bridge_lost"
    assert words(events)
    assert json.loads(events[-1].body)["data"]["transcript"]


async def test_an_heir_gets_a_call_that_has_no_stream_here(world: World) -> None:
    world.twilio.refuse = 503
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid = call.report.call_sid
        outbox, reaper = bridge._services.outbox, bridge.relay.reaper
        await reaper.beat()
        assert await outbox.inherit(call_sid, "heir", b"", node="b", silent_s=10) is None
        await reaper.beat()
        await asyncio.sleep(0.1)
        (kept,) = bridge.calls
        assert not kept.leaving  # its stream is well
        kept.cut("disconnected")
        await reaper.beat()
        async with asyncio.timeout(10):
            while bridge.calls.get(call_sid):
                await asyncio.sleep(0.01)
        lease = await outbox.inherit(call_sid, "heir", b"", node="b", silent_s=10)
        assert lease is not None
        assert lease.watermarks["inbound"] > 0
        assert not lease.ended
        assert world.journals() == []


async def test_of_two_takers_one_wins_and_the_other_says_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPREAD_S", 0.0)
    world.twilio.refuse = 503
    async with world.bridge() as bridge, world.talking(bridge) as call:
        (lost,) = bridge.calls
        await lost.abandon()
        bridge.calls._ended.clear()
        outbox = bridge._services.outbox
        known = await outbox.known(call.report.call_sid)
        assert known is not None
        await outbox.own_call(call.report.call_sid, "faster", b"", node="b")
        bridge.relay.reaper.take(known)
        await asyncio.sleep(0.1)
        after = await outbox.known(call.report.call_sid)
        assert after is not None
        assert after.owner == "faster"
        assert len(bridge.calls) == 0


async def test_an_heir_who_died_is_not_waited_for_again_and_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPREAD_S", 0.0)
    monkeypatch.setattr(module, "HEIR_S", 0.1)
    world.twilio.refuse = 503
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid = call.report.call_sid
        outbox, reaper = bridge._services.outbox, bridge.relay.reaper
        (lost,) = bridge.calls
        await lost.abandon()
        for folder in world.journals():
            folder.rename(world.around.directory / folder.name)
        bridge.calls._ended.clear()
        lease = await outbox.own_call(call_sid, "another", b"", node="b")
        assert await outbox.inherit(call_sid, "heir", b"", node="dead", silent_s=10) is None
        await outbox.let_go(lease)
        await reaper.look()
        await asyncio.sleep(0.2)
        await reaper.look()
        async with asyncio.timeout(5):
            while bridge.calls.get(call_sid) is None:
                await asyncio.sleep(0.01)
        await reaper.beat()
        await asyncio.sleep(0.1)
        (kept,) = bridge.calls
        assert not kept.leaving


async def test_a_process_that_is_alone_takes_however_many_calls_were_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPREAD_S", 0.0)
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    calls = [f"CA{number:032x}" for number in range(2 * module.AT_ONCE + 1)]
    async with world.bridge() as bridge:
        outbox = bridge._services.outbox
        for call_sid in calls:
            await outbox.let_go(await outbox.own_call(call_sid, "first", b"{}", node="a"))
    async with world.bridge() as bridge:
        outbox = bridge._services.outbox
        async with asyncio.timeout(10):
            while await outbox.orphans(0.0, 1):
                await asyncio.sleep(0.05)


async def test_a_call_that_is_just_let_go_and_taken_back_does_not_hold_up_the_end(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid = call.report.call_sid
        (kept,) = bridge.calls
        kept.cut("disconnected")
        world.whisper.mute = set(range(1000))
        bridge.relay.reaper._do(call_sid, kept.let_go(module.FLUSH_S, wanted=True))
        await asyncio.sleep(0)
        known = await bridge._services.outbox.known(call_sid)
        assert known is not None
        await bridge.relay.recovery.take(known)
        assert bridge.calls.get(call_sid) is not kept
        await bridge.relay.reaper.close()
        await asyncio.wait_for(kept.done.wait(), 1)


async def test_a_call_whose_audio_is_on_this_machine_is_left_to_who_finds_it_but_not_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SPREAD_S", 0.0)
    monkeypatch.setattr(module, "AUDIO_S", 0.3)
    world.twilio.refuse = 503
    call_sid, folder_id = "CA" + "7" * 32, "a" * 16
    async with world.bridge() as bridge:
        outbox, reaper = bridge._services.outbox, bridge.relay.reaper
        (bridge._services.journals.root / ("b" * 32) / f"{call_sid}.{folder_id}").mkdir(parents=True)
        await outbox.own_call(call_sid, folder_id, b"{}", node="dead")
        bridge.relay.recovery.taking = False  # nobody looks for it
        assert await reaper.look(0.0)
        assert reaper._working == {}
        known = await outbox.known(call_sid)
        assert known is not None
        assert known.owner == folder_id
        async with asyncio.timeout(10):
            while await outbox.orphans(0.0, 1):
                await reaper.look(0.0)
                await asyncio.sleep(0.05)


async def test_who_hears_that_somebody_waits_for_its_call_beats_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BEAT_S", 60.0)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid, reaper = call.report.call_sid, bridge.relay.reaper
        beating = asyncio.create_task(reaper.run())
        async with asyncio.timeout(5):
            while call_sid not in reaper.heirs:
                await asyncio.sleep(0.01)
        assert await bridge._services.outbox.inherit(call_sid, "heir", b"", node="b", silent_s=10) is None
        reaper.hasten("CA" + "0" * 32)  # not one of ours
        for _ in range(5):
            await asyncio.sleep(0.01)
        assert reaper.heirs[call_sid] == ""
        reaper.hasten(call_sid)
        async with asyncio.timeout(5):
            while reaper.heirs[call_sid] != "heir":
                await asyncio.sleep(0.01)
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
