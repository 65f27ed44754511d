import asyncio
import time

import pytest

from bridge.call import handover as module
from bridge.local.twilio.rest.fault import Fault
from tests.doubles.world import World, in_order, words

NO_ACCOUNT = {"verify_signatures": False, "account_sid": "", "auth_token": ""}


async def test_a_bridge_that_is_alone_leaves_its_calls_to_the_next_process(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        hurry = asyncio.Event()
        hurry.set()
        began = time.monotonic()
        await bridge.drain(hurry)
        assert time.monotonic() - began < module.FLUSH_S
        assert len(bridge.calls) == 0
        known = await bridge._services.outbox.known(call.report.call_sid)
        assert known is not None
        assert (known.owner, known.ended) == ("", False)
        assert world.journals() == []  # all of it is told
        assert world.twilio.asked == []
        call.hang_up()
    async with world.bridge():
        events = await world.ended(call)
    in_order(events)
    assert words(events)
    assert events[-1].data["reason"] == "bridge_lost"


async def test_without_the_rest_api_a_call_that_is_left_has_ended(world: World) -> None:
    async with world.bridge(twilio=NO_ACCOUNT) as bridge, world.talking(bridge) as call:
        hurry = asyncio.Event()
        hurry.set()
        await bridge.drain(hurry)
        ended = (await world.ended(call))[-1].data
    assert (ended["reason"], ended["complete"]) == ("drained", True)


async def test_what_is_not_transcribed_in_time_stays_on_the_disk_and_with_its_owner(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.0)
    async with world.bridge() as bridge, world.talking(bridge) as call:
        hurry = asyncio.Event()
        hurry.set()
        await bridge.drain(hurry)
        known = await bridge._services.outbox.known(call.report.call_sid)
        assert known is not None
        assert known.owner == world.journals()[0].name.partition(".")[2]


async def test_with_an_heir_the_old_stream_is_stopped_in_a_pause_and_the_call_let_go(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        call_sid = call.report.call_sid
        outbox, relay = bridge._services.outbox, bridge.relay
        relay.handover._shared = True
        bridge.draining = True  # the new stream is refused here: it goes to another process
        leaving = asyncio.create_task(relay.handover.run(asyncio.Event()))
        async with asyncio.timeout(5):
            while len(call.report.streams) < 2:
                await asyncio.sleep(0.01)
        assert await outbox.inherit(call_sid, "heir", b"", node="b", silent_s=10) is None
        await leaving
        lease = await outbox.inherit(call_sid, "heir", b"", node="b", silent_s=10)
        assert lease is not None
        assert not call.report.streams[0].closed_by_bridge  # Twilio stopped it, as it was asked to
        until_ms = call.report.streams[0].frames // 2 * 20
        finals = [r.data for r in world.receiver.received if r.type == "transcript.final"]
        assert max(f["end_ms"] for f in finals) <= lease.watermarks["inbound"] // 8 + 100 <= until_ms + 300


@pytest.mark.parametrize("patience_s", [0.2, 60.0])
async def test_a_rest_api_that_hangs_does_not_hold_up_a_stop(
    world: World, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(module, "INVITE_S", patience_s)
    hurry = asyncio.Event()
    async with world.bridge() as bridge, world.talking(bridge) as call:
        hangs = world.twilio.faults.add(Fault(times=None, released=asyncio.Event()))
        bridge.relay.handover._shared = True
        began = time.monotonic()
        leaving = asyncio.create_task(bridge.relay.handover.run(hurry))
        await hangs.met.wait()
        if patience_s > 1:
            hurry.set()
        await leaving
        assert time.monotonic() - began < 5
        known = await bridge._services.outbox.known(call.report.call_sid)
        assert known is not None
        assert (known.owner, known.ended) == ("", False)
