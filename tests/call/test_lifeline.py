import asyncio
import time

import pytest

from bridge.call import carrier as carrier_module
from bridge.call import lifeline as module
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest.fault import Fault
from bridge.local.twilio.script import Hole, Script
from bridge.serve import Bridge
from tests.doubles.world import World, in_order, words


def cut(bridge: Bridge, call: SimulatedCall) -> None:
    """Break the stream of a call, which goes on."""
    kept = bridge.calls.get(call.report.call_sid)
    assert kept is not None
    kept.cut("disconnected")


async def test_a_call_whose_socket_breaks_is_streamed_again_and_told_of_as_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_FIRST_S", 0.5)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        world.twilio.refuse = 503
        cut(bridge, call)
        async with asyncio.timeout(10):
            while not world.twilio.asked:
                await asyncio.sleep(0.01)
        world.twilio.refuse = None
        async with asyncio.timeout(10):
            while len(call.report.streams) < 2 or call.report.streams[1].frames < 150:
                await asyncio.sleep(0.01)
        call.hang_up()
        events = await world.ended(call)
    in_order(events)
    gaps = [e.data for e in events if e.type == "transcript.gap"]
    assert [gap["track"] for gap in gaps] == ["inbound", "outbound"]
    for gap in gaps:
        assert abs(gap["end_ms"] - call.report.streams[1].first_frame * 20) <= 60
    heard = words(events)
    assert heard == sorted(set(heard))
    assert events[-1].data["reason"] == "hangup"


async def test_a_call_that_is_over_ends_at_once_when_its_socket_breaks(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call.status, call.ended_at = "completed", time.time()
        cut(bridge, call)
        ended = (await world.ended(call))[-1].data
    assert (ended["reason"], ended["complete"]) == ("hangup", True)


async def test_where_twilio_cannot_be_asked_a_call_whose_socket_breaks_has_ended(world: World) -> None:
    world.twilio.refuse = 401
    async with world.bridge() as bridge, world.talking(bridge) as call:
        began = time.monotonic()
        cut(bridge, call)
        ended = (await world.ended(call))[-1].data
    assert ended["reason"] == "disconnected"
    assert 1.5 < time.monotonic() - began < 10


@pytest.mark.parametrize("refusal", [429, 503])
async def test_a_call_that_twilio_is_too_busy_to_tell_of_is_not_taken_for_over(
    world: World, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    monkeypatch.setattr(module, "CUT_S", 0.0)
    monkeypatch.setattr(module, "ASK_FIRST_S", 0.1)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        world.twilio.refuse = refusal
        cut(bridge, call)
        async with asyncio.timeout(10):
            while len(world.twilio.asked) < 3:
                await asyncio.sleep(0.01)
        world.twilio.refuse = None
        async with asyncio.timeout(10):
            while len(call.report.streams) < 2:
                await asyncio.sleep(0.01)
        (kept,) = bridge.calls
        assert not kept.ending


async def test_after_some_vain_tries_a_call_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_FIRST_S", 0.01)
    monkeypatch.setattr(module, "ASK_LAST_S", 0.05)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        monkeypatch.setattr(call, "start_stream", lambda _: call.report.streams[0])  # it never comes
        cut(bridge, call)
        ended = (await world.ended(call))[-1].data
    assert ended["reason"] == "reattach_failed"
    assert sum("/Streams.json" in asked for asked in world.twilio.asked) == module.TRIES


async def test_a_mute_stream_ends_only_if_its_call_did(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_module, "MUTE_S", 0.2)
    call = world.call(400, Script(holes=(Hole(2000, 60_000),)))
    async with world.bridge() as bridge:
        task = asyncio.create_task(call.run())
        await world.receiver.wait_for_type("transcript.final")
        async with asyncio.timeout(10):
            while len(world.twilio.asked) < 2:
                await asyncio.sleep(0.01)
        (kept,) = bridge.calls
        assert not kept.ending
        call.status, call.ended_at = "completed", time.time()
        ended = (await world.ended(call))[-1].data
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert ended["reason"] == "hangup"


async def test_a_bridge_that_stops_alone_leaves_a_broken_stream_to_the_next_process(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_FIRST_S", 0.01)
    monkeypatch.setattr(module, "ASK_LAST_S", 0.05)
    hurry = asyncio.Event()
    async with world.bridge() as bridge, world.talking(bridge), world.talking(bridge) as broken:
        draining = asyncio.create_task(bridge.drain(hurry))
        await asyncio.sleep(0)
        cut(bridge, broken)
        async with asyncio.timeout(10):
            while len(world.twilio.asked) < 2 * module.TRIES + 2:
                await asyncio.sleep(0.01)
        hurry.set()
        await draining
        known = await bridge._services.outbox.known(broken.report.call_sid)
        assert known is not None
        assert not known.ended  # no stream was asked for that would be refused here


async def test_streams_that_twilio_was_too_busy_to_be_asked_for_are_no_vain_tries(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_FIRST_S", 0.01)
    monkeypatch.setattr(module, "ASK_LAST_S", 0.05)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        world.twilio.faults.add(Fault(status=429, where="/Streams.json", times=module.TRIES + 2))
        cut(bridge, call)
        async with asyncio.timeout(10):
            while len(call.report.streams) < 2:
                await asyncio.sleep(0.01)
        (kept,) = bridge.calls
        assert not kept.ending
