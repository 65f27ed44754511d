import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from bridge.workers.entrance import Entrance


@dataclass
class Taker:
    """A worker that takes connections, or does not."""

    takes: bool = True
    taken: list[Any] = field(default_factory=list)

    def take(self, connection: socket.socket, turn: int) -> bool:
        if self.takes:
            self.taken.append((turn, connection.getpeername()))
        return self.takes


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


async def until(taker: Taker, count: int) -> None:
    async with asyncio.timeout(5):
        while len(taker.taken) < count:
            await asyncio.sleep(0.01)


async def test_connections_wait_until_there_is_a_worker_and_the_next_one_has_them_if_it_can(
    listener: socket.socket,
) -> None:
    takers: list[Any] = []
    entrance = Entrance(listener, lambda: takers)
    entrance.open()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0.01)
    full, free = Taker(takes=False), Taker()
    takers += [full, free]
    entrance.open()
    await until(free, 3)
    assert free.taken == [(turn + 1, client.getsockname()) for turn, client in enumerate(clients)]
    assert full.taken == []
    for client in clients:
        client.close()
    entrance.close()
    assert entrance.port == listener.getsockname()[1]


async def test_a_connection_that_nobody_can_take_now_waits_and_so_do_those_behind_it(
    listener: socket.socket,
) -> None:
    taker = Taker(takes=False)
    entrance = Entrance(listener, lambda: [taker])  # type: ignore[list-item]  # all that it needs of one
    entrance.open()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(3)]
    while entrance._turn < 3:  # it has been tried more than once
        await asyncio.sleep(0.01)
    taker.takes = True
    await until(taker, 3)
    assert [address for _, address in taker.taken] == [client.getsockname() for client in clients]
    entrance.close()
    for client in clients:
        client.close()


async def test_one_that_still_waits_at_the_end_is_closed(listener: socket.socket) -> None:
    entrance = Entrance(listener, lambda: [Taker(takes=False)])  # type: ignore[list-item]  # all that it needs of one
    entrance.open()
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    while not entrance._turn:
        await asyncio.sleep(0.01)
    entrance.close()
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    entrance.close()
