import asyncio

import pytest
import requests

from bridge.local.twilio.rest import Fault
from tests.doubles.strict_bridge import PUBLIC
from tests.local.twilio.rest.conftest import World

NUMBER = "+15550101"


async def test_a_fault_happens_to_its_requests_and_so_often(world: World) -> None:
    sid = world.api.numbers.add(NUMBER)
    one = world.twilio.client.incoming_phone_numbers(sid)
    world.api.faults.add(Fault(503, where="POST /2010-04-01/", times=2))
    world.api.faults.add(Fault(429, where="GET", skips=1, code=20429, retry_after_s=3))
    for _ in range(2):
        assert await world.twilio.refused(lambda _: one.update(voice_url=PUBLIC)) == (503, 20500)
    await world.twilio.ask(lambda _: one.update(voice_url=PUBLIC))
    await world.twilio.ask(lambda _: one.fetch())
    assert await world.twilio.refused(lambda _: one.fetch()) == (429, 20429)
    assert (await world.twilio.ask(lambda _: one.fetch())).voice_url == PUBLIC


@pytest.mark.parametrize(
    ("status", "code"), [(400, 20001), (401, 20003), (404, 20404), (429, 20429), (500, 20500)]
)
async def test_every_status_has_twilios_code(world: World, status: int, code: int) -> None:
    world.api.faults.add(Fault(status))
    listed = world.twilio.client.incoming_phone_numbers
    assert await world.twilio.refused(lambda _: listed.list()) == (status, code)


async def test_a_fault_may_come_by_chance_and_the_same_again(world: World) -> None:
    sid = world.api.numbers.add(NUMBER)
    world.api.faults.add(Fault(500, times=None, rate=0.5))
    one = world.twilio.client.incoming_phone_numbers(sid)

    async def well() -> bool:
        try:
            await world.twilio.ask(lambda _: one.fetch())
        except Exception:  # noqa: BLE001 - which one another test says
            return False
        return True

    outcomes = [await well() for _ in range(20)]
    assert 4 < sum(outcomes) < 16
    world.api.faults.clear()
    assert await well()


async def test_a_request_may_hang_before_it_is_done_or_afterwards(world: World) -> None:
    sid = world.api.numbers.add(NUMBER)
    one = world.twilio.client.incoming_phone_numbers(sid)
    for afterwards, done in ((False, ""), (True, PUBLIC)):
        released = asyncio.Event()
        fault = world.api.faults.add(Fault(released=released, afterwards=afterwards))
        asking = asyncio.create_task(world.twilio.ask(lambda _: one.update(voice_url=PUBLIC)))
        async with asyncio.timeout(5):
            await fault.met.wait()
        assert world.api.numbers.of(NUMBER)["voice_url"] == done
        assert not asking.done()
        released.set()
        assert (await asking).voice_url == PUBLIC
        world.api.numbers.of(NUMBER)["voice_url"] = ""


async def test_an_answer_may_be_slow_or_never_come(world: World) -> None:
    sid = world.api.numbers.add(NUMBER)
    one = world.twilio.client.incoming_phone_numbers(sid)
    world.api.faults.add(Fault(delay_s=0.2))
    began = asyncio.get_running_loop().time()
    await world.twilio.ask(lambda _: one.fetch())
    assert asyncio.get_running_loop().time() - began >= 0.2
    world.api.faults.add(Fault(drops=True, afterwards=True))
    with pytest.raises(requests.ConnectionError):
        await world.twilio.ask(lambda _: one.update(voice_url=PUBLIC))
    assert world.api.numbers.of(NUMBER)["voice_url"] == PUBLIC
