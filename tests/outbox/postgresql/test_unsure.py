import asyncio

from bridge.outbox.outbox import Outgoing
from bridge.outbox.postgresql.postgres import Postgres
from tests.doubles.postgres import PostgresServer


async def test_what_deliveries_tell_waits_for_no_standby_but_a_publish_and_a_claim_do(
    own_server: PostgresServer,
) -> None:
    standby = await own_server.standby()
    store = Postgres(own_server.url)
    await store.open()
    try:
        calls = [await store.own_call(f"CA{number}", "me", b"") for number in range(5)]
        events = [Outgoing("https://a.example/", 1, f"e{number}", "t", b"{}") for number in range(5)]
        for call, event in zip(calls[:4], events[:4], strict=True):
            await store.publish(call, [event], {})
        accepted, failed, handed_back = await store.claim("me", 3, 15)
        await standby.freeze()
        async with asyncio.timeout(1.5):
            assert not await store.ack(accepted, 1)
            await store.retry(failed, 1, 60.0, 503, "status 503")
            await store.release(handed_back)
        waiting = {
            asyncio.create_task(store.publish(calls[4], [events[4]], {})),
            asyncio.create_task(store.claim("me", 3, 15)),
        }
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        await standby.thaw()
        await asyncio.gather(*waiting)
    finally:
        await store.close()
        await standby.remove()
