import asyncio
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from bridge import log
from bridge.whisper import dialler as module
from bridge.whisper.breaker import ENOUGH
from bridge.whisper.dialler import Dialler, Line
from bridge.whisper.endpoint import Endpoint
from tests.doubles.haste import haste
from tests.doubles.numbered import NumberedWhisper

HASTE = 50


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with haste(HASTE):
        yield


def dialler(*servers: NumberedWhisper) -> Dialler:
    return Dialler(tuple(Endpoint(server.url, "", "v1") for server in servers), log.get("test"))


async def ready(dialler: Dialler, timeout: float = 5) -> float:
    async with asyncio.timeout(timeout):
        while (seconds := dialler.successor()) is None:
            await asyncio.sleep(0.005)
    return seconds


def hang_up(*lines: Line) -> None:
    for line in lines:
        line.socket.abort()


async def test_it_goes_to_the_fallback_says_so_and_comes_back() -> None:
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        first.refuse = [500, 500]
        calls = dialler(first, second)
        with capture_logs() as logs:
            line = await calls.open()
            assert line.place == 1
            await ready(calls)
            back = await calls.open()
        assert back.place == 0
        events = [each["event"] for each in logs]
        assert events == ["whisper_unreachable", "whisper_failover", "whisper_failback"]
        assert all("://" not in str(each) for each in logs)
        hang_up(line, back)
        await calls.close()


async def test_a_first_choice_that_stays_away_is_asked_now_and_then() -> None:
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        first.refusing = 500
        calls = dialler(first, second)
        line = await calls.open()
        began = asyncio.get_running_loop().time()
        while len(first.attempts) < 5:
            assert calls.successor() is None
            await asyncio.sleep(0.005)
        passed = asyncio.get_running_loop().time() - began
        assert 3 * module.BACK_S <= passed <= 3 * 2 * module.BACK_S
        hang_up(line)
        await calls.close()


async def test_nobody_asks_a_first_choice_whose_breaker_is_open() -> None:
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        calls = dialler(first, second)
        breaker = calls._endpoints[0].breaker
        for _ in range(ENOUGH):
            breaker.end(breaker.begin(0.0), asyncio.get_running_loop().time(), opened=False)
        breaker.rest(asyncio.get_running_loop().time() + 60)
        line = await calls.open()
        assert line.place == 1
        for _ in range(100):
            assert calls.successor() is None
            await asyncio.sleep(2 * module.BACK_S / 100)
        assert first.attempts == []
        hang_up(line)
        await calls.close()


async def test_a_young_socket_has_no_successor_and_an_old_one_has() -> None:
    async with NumberedWhisper() as server:
        calls = dialler(server)
        lifespan = calls._endpoints[0].lifespan
        line = await calls.open()
        assert calls.successor() is None
        await asyncio.sleep(0.02)
        assert len(server.attempts) == 1
        lifespan.limit_s = 0.01
        await ready(calls)
        assert calls.successor() is not None
        following = await calls.open()
        assert following.socket is not line.socket
        assert len(server.attempts) == 2
        hang_up(line, following)
        await calls.close()


async def test_a_successor_that_is_not_wanted_is_closed() -> None:
    async with NumberedWhisper() as server:
        calls = dialler(server)
        calls._endpoints[0].lifespan.limit_s = 0.0
        line = await calls.open()
        await ready(calls)
        await calls.close()
        hang_up(line)
        async with asyncio.timeout(2):
            while not all(each.close_code for each in server.connections) or len(server.connections) < 2:
                await asyncio.sleep(0.01)


async def test_a_socket_that_drops_before_its_successor_is_there_does_not_wait_for_it() -> None:
    async with NumberedWhisper() as server:
        calls = dialler(server)
        calls._endpoints[0].lifespan.limit_s = 0.0
        line = await calls.open()
        server.delay_s = [0, 1, 0]
        while len(server.attempts) < 2:
            assert calls.successor() is None
            await asyncio.sleep(0.005)
        hang_up(line)
        calls.ended(line, dropped=True, worked=True, idle=True)
        async with asyncio.timeout(2):
            following = await calls.open()
        hang_up(following)
        await calls.close()


async def test_a_queue_that_ends_at_an_open_breaker_asks_nobody() -> None:
    async with NumberedWhisper() as server:
        endpoint = Endpoint(server.url, "", "v1")
        sessions = [Dialler((endpoint,), log.get("test")) for _ in range(3)]
        server.refusing = 500
        opening = [asyncio.create_task(each.open()) for each in sessions]
        while len(server.attempts) < ENOUGH:
            await asyncio.sleep(0.001)
        server.refusing = 0
        lines = await asyncio.gather(*opening)
        assert len(server.attempts) <= ENOUGH + 3 + 3
        hang_up(*lines)


async def test_what_cannot_be_reached_is_said_once_for_each_reason() -> None:
    async with NumberedWhisper() as server:
        server.refuse = [500, 500, 404, 500, 404]
        calls = dialler(server)
        with capture_logs() as logs:
            line = await calls.open()
        assert [each["event"] for each in logs] == ["whisper_unreachable"] * 2
        hang_up(line)


async def test_a_first_choice_that_opens_and_does_not_work_is_gone_back_to_less_and_less() -> None:
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        calls = dialler(first, second)
        line = await calls.open()
        hang_up(line)
        for waited_s in (module.BACK_S, 2 * module.BACK_S, 4 * module.BACK_S):
            assert calls._back_s == waited_s
            calls.ended(line, dropped=True, worked=False, idle=False)
        calls.ended(line, dropped=True, worked=True, idle=False)
        assert calls._back_s == module.BACK_S
        await calls.close()


async def test_calls_that_begin_wait_for_nobody_and_those_that_come_back_take_turns() -> None:
    async with NumberedWhisper() as server:
        endpoint = Endpoint(server.url, "", "v1")
        calls = Dialler((endpoint,), log.get("test"))
        began = asyncio.get_running_loop().time()
        while not endpoint.turnstile.wait_s(began):  # others have taken every place of this second
            pass
        first = await calls.open()
        assert asyncio.get_running_loop().time() - began < 0.5
        again = await calls.open()
        assert asyncio.get_running_loop().time() - began >= 1.0
        hang_up(first, again)
        await calls.close()
