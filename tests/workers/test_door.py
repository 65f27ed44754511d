import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bridge.workers import door
from bridge.workers.door import Door, send


async def test_connections_arrive_each_as_it_is() -> None:
    ours, theirs = socket.socketpair()
    arrived: asyncio.Queue[socket.socket] = asyncio.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listener, Door(theirs, arrived.put_nowait):
        for number in range(100):
            with socket.create_connection(listener.getsockname()) as client:
                accepted, _ = listener.accept()
                with accepted:
                    assert send(ours, accepted)
                async with asyncio.timeout(5):
                    received = await arrived.get()
                with received:
                    assert not received.getblocking()
                    assert received.getpeername() == client.getsockname()
                    client.sendall(b"%d" % number)
                    async with asyncio.timeout(5):
                        heard = await asyncio.get_running_loop().sock_recv(received, 10)
                    assert heard == b"%d" % number
    ours.close()


async def test_many_that_wait_arrive_too() -> None:
    ours, theirs = socket.socketpair()
    connections = [socket.socketpair() for _ in range(90)]
    for near, _ in connections:
        assert send(ours, near)
    arrived: list[socket.socket] = []
    with Door(theirs, arrived.append):
        async with asyncio.timeout(5):
            while len(arrived) < len(connections):
                await asyncio.sleep(0.01)
    for each in (ours, *arrived, *(end for pair in connections for end in pair)):
        each.close()


async def test_a_door_that_is_full_takes_none_now_and_one_that_is_gone_never() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    one, other = socket.socketpair()
    with ours, one, other:
        for _ in range(10_000):
            if not send(ours, one):
                break
        else:
            pytest.fail("it is never full")
        theirs.close()
        with pytest.raises(OSError, match="Broken pipe"):
            send(ours, one)


async def test_it_waits_quietly_when_nobody_sends_any_more() -> None:
    ours, theirs = socket.socketpair()
    with Door(theirs, lambda _: None):
        ours.close()
        for _ in range(3):
            await asyncio.sleep(0)
        assert not asyncio.get_running_loop().remove_reader(theirs.fileno())


@contextmanager
def no_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_one_for_which_there_is_no_descriptor_counts_and_those_behind_it_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(door, "CROWDED_S", 0.05)
    ours, theirs = socket.socketpair()
    pairs = [socket.socketpair() for _ in range(5)]
    for near, _ in pairs:
        assert send(ours, near)
    arrived: list[socket.socket] = []
    with Door(theirs, arrived.append) as opened:
        with no_descriptors():
            while not opened.count:
                await asyncio.sleep(0)
        assert (opened.count, opened.crowded, arrived) == (1, True, [])
        async with asyncio.timeout(5):
            while opened.count < len(pairs):
                await asyncio.sleep(0.01)
        assert not opened.crowded
    assert len(arrived) == len(pairs) - 1
    for each in (ours, *arrived, *(end for pair in pairs for end in pair)):
        each.close()
