import asyncio

from tests.doubles.world import World


async def test_a_bridge_that_drains_takes_no_calls_of_others(world: World) -> None:
    world.twilio.refuse = 503
    async with world.bridge() as bridge:
        relay = bridge.relay
        await relay.drain(0.0, asyncio.Event())
        await bridge._services.outbox.own_call("CA" + "7" * 32, "another", b"{}", node="dead")
        await relay.reaper.look(0.0)
        async with asyncio.timeout(5):
            while relay.reaper._working:
                await asyncio.sleep(0.01)
        known = await bridge._services.outbox.known("CA" + "7" * 32)
        assert known is not None
        assert known.owner == "another"
