import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.workers.company import Answer
from bridge.workers.line import LONGEST, WAITING, Line, Lost


@asynccontextmanager
async def lines(*answers: Mapping[str, Answer]) -> AsyncIterator[tuple[Line, Line]]:
    one, other = (Line(each) for each in (*answers, {}, {})[:2])
    for line, end in zip((one, other), socket.socketpair(), strict=True):
        end.setblocking(False)
        await line.open(end)
    tasks = [asyncio.create_task(line.run()) for line in (one, other)]
    try:
        yield one, other
    finally:
        await one.close()
        await other.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_both_ends_ask_and_answer_at_the_same_time() -> None:
    async def double(number: Any) -> Any:
        await asyncio.sleep(0.01 / (number + 1))  # the answers come in another order
        return 2 * number

    async with lines({"double": double}, {"double": double}) as (one, other):
        asked = [line.ask("double", number) for number in range(20) for line in (one, other)]
        assert await asyncio.gather(*asked) == [2 * number for number in range(20) for _ in range(2)]


async def test_what_nobody_answers_or_somebody_cannot_is_answered_with_nothing() -> None:
    async def fail(_: Any) -> Any:
        raise BridgeError("The disk is full.")

    async def crash(_: Any) -> Any:
        raise ZeroDivisionError

    async with lines({}, {"fail": fail, "crash": crash}) as (one, _):
        assert [await one.ask(what) for what in ("unknown", "fail", "crash")] == [None, None, None]


async def test_an_end_that_is_gone_is_an_error_and_so_is_one_that_does_not_answer() -> None:
    async def never(_: Any) -> None:
        await asyncio.Event().wait()

    async with lines({}, {"never": never}) as (one, other):
        with pytest.raises(Lost, match="not answered within 0 s"):
            await one.ask("never", timeout_s=0.05)
        asking = asyncio.create_task(one.ask("never"))
        await asyncio.sleep(0.05)
        await other.close()
        with pytest.raises(Lost, match="gone"):
            await asking
        assert not one.tell("never")


async def test_what_is_told_is_heard_in_order_and_large_things_arrive_whole() -> None:
    heard: list[Any] = []
    done = asyncio.Event()

    async def hear(about: Any) -> None:
        heard.append(about)
        if len(heard) == 10:
            done.set()

    async with lines({}, {"hear": hear}) as (one, _):
        for number in range(10):
            assert one.tell("hear", [number, b"x" * 30_000])
        async with asyncio.timeout(5):
            await done.wait()
    assert heard == [[number, b"x" * 30_000] for number in range(10)]


async def test_an_end_that_does_not_read_is_told_no_more() -> None:
    line = Line({})
    end, still = socket.socketpair()
    end.setblocking(False)
    await line.open(end)
    told = 0
    while line.tell("hear", b"x" * 100_000):
        told += 1
        assert told < 100
    assert told * 100_000 > WAITING
    with pytest.raises(Lost, match="does not read"):
        await line.ask("hear")
    await line.close()
    still.close()


@pytest.mark.parametrize(
    "bytes_",
    [
        b"\0\0\0\x01\xc1",
        b"\0\0\0\x03\x93\xa1x",
        b"\0\0\0\x04\x93\xa1x\0",
        (100_003).to_bytes(4, "big") + b"\x93\0\xa0" + b"\x91" * 100_000,
        (LONGEST + 1).to_bytes(4, "big"),
    ],
    ids=["no msgpack", "cut", "other types", "too deep", "too long"],
)
async def test_what_cannot_be_read_is_the_end_of_the_line(bytes_: bytes) -> None:
    line = Line({})
    end, other = socket.socketpair()
    await line.open(end)
    with other:
        other.setblocking(False)
        await asyncio.gather(line.run(), asyncio.get_running_loop().sock_sendall(other, bytes_))
        assert line.garbled
        with pytest.raises(Lost):
            await line.ask("anything")
    await line.close()


async def test_what_is_too_long_for_the_other_end_is_not_said() -> None:
    async with lines() as (one, other):
        assert not one.tell("hear", b"x" * LONGEST)
        assert await other.ask("still there") is None
