import asyncio

import pytest

from bridge.call import legs as module
from bridge.local.twilio.script import Script
from tests.doubles.world import World


async def test_silence_that_is_settled_is_known_though_nobody_says_anything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLE_S", 0.1)
    monkeypatch.setattr("bridge.whisper.watermark.QUIET_S", 1.0)
    async with world.bridge() as bridge, world.talking(bridge, Script(speed=4)):
        (call,) = bridge.calls
        lines = await bridge._services.outbox.transcript(call.about.call_sid)
        assert {line.track for line in lines} == {"inbound"}
        async with asyncio.timeout(10):
            while not any(leg.noted for leg in call._legs if leg.track.name == "outbound"):
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        marks = (await bridge._services.outbox.own_call(call.about.call_sid, "another", b"")).watermarks
    assert marks["outbound"] > 0


async def test_a_leg_is_made_when_its_track_is_first_named(world: World) -> None:
    async with world.bridge() as bridge, world.talking(bridge):
        (call,) = bridge.calls
        legs = call._legs
        assert [leg.track.name for leg in legs] == ["inbound", "outbound"]
        assert legs.of("inbound") is next(iter(legs))
        assert legs.kept_until == legs.received_until > 0
        assert not legs.unopened
        assert legs.quiet(0)
        assert not legs.quiet(10**6)
