"""What a worker does by itself; that several are one bridge is shown in test_supervisor.py."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from bridge.workers import child as told
from bridge.workers.balance import Report
from bridge.workers.door import send
from bridge.workers.line import Line, Lost
from bridge.workers.setup import Setup
from bridge.workers.worker import ORPHANED, Worker
from tests.doubles.bridge import settings


class Streams(list[Any]):
    fullness = 0
    changed: Callable[[], None]


@asynccontextmanager
async def worker(
    directory: Path, *, streams: Streams, heard: asyncio.Queue[Report]
) -> AsyncIterator[tuple[socket.socket, asyncio.Event]]:
    """A worker without a bridge: the door to it, and what tells it to stop. What it reports is `heard`."""

    async def reports(about: Any) -> None:
        heard.put_nowait(msgspec.convert(about, Report))

    config = settings(directory, "ws://127.0.0.1:9/", "https://example.com/")
    setup = Setup.of(config, 1, node="a" * 32, port=8080)
    door, door_end = socket.socketpair()
    ends = socket.socketpair()
    supervisor, line = Line({told.REPORT: reports}), Line({})
    for each, end in zip((supervisor, line), ends, strict=True):
        end.setblocking(False)
        await each.open(end)
    stop = asyncio.Event()
    found = Worker(setup, config, line, door_end, None, stop=stop)

    async def hello(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.add_routes([web.get("/", hello)])
    runner = await found.serve(app, streams)
    tasks = [asyncio.create_task(each) for each in (supervisor.run(), line.run(), found.run())]
    try:
        yield door, stop
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        await supervisor.close()
        await line.close()
        door.close()


async def report(heard: asyncio.Queue[Report], wanted: Report) -> None:
    async with asyncio.timeout(5):
        while await heard.get() != wanted:
            pass


async def test_a_connection_counts_as_a_stream_until_it_shows_that_it_is_none(tmp_path: Path) -> None:
    streams = Streams([object()])
    heard: asyncio.Queue[Report] = asyncio.Queue()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with worker(tmp_path, streams=streams, heard=heard) as (door, stop):
            await report(heard, Report(1, 0, taking=True))
            client = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
            with client, accepted:
                assert send(door, accepted)
            await report(heard, Report(2, 1, taking=True, unsure=1))
            await report(heard, Report(1, 1, taking=True))  # it has brought no request for a while
            streams.clear()
            await report(heard, Report(0, 1, taking=True))
            streams.fullness = 2
            await report(heard, Report(0, 1, taking=True, fullness=2))
            stop.set()
            await report(heard, Report(0, 1, taking=False, fullness=2))


async def test_that_a_stream_was_let_in_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.workers.worker.LOOK_S", 60.0)
    streams = Streams()
    heard: asyncio.Queue[Report] = asyncio.Queue()
    async with worker(tmp_path, streams=streams, heard=heard):
        await report(heard, Report(0, 0, taking=True))
        streams.append(object())
        streams.fullness = 2
        streams.changed()
        await report(heard, Report(1, 0, taking=True, fullness=2))


async def test_a_connection_is_closed_behind_its_answer(tmp_path: Path) -> None:
    heard: asyncio.Queue[Report] = asyncio.Queue()
    ours, theirs = socket.socketpair()
    async with worker(tmp_path, streams=Streams(), heard=heard) as (door, _):
        assert send(door, theirs)
        theirs.close()
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert b"Connection: close" in answer
        assert answer.endswith(b"hello")
        await report(heard, Report(0, 1, taking=True))
        writer.close()
        await writer.wait_closed()


async def test_without_its_supervisor_it_has_nobody_to_ask_and_no_figures(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    end, other = socket.socketpair()
    end.setblocking(False)
    line = Line({})
    await line.open(end)
    other.close()
    door, door_end = socket.socketpair()
    found = Worker(
        Setup.of(config, 1, node="a" * 32, port=8080), config, line, door_end, None, stop=asyncio.Event()
    )
    assert await found.ask("calls", timeout_s=0.1) == []
    found.tell("calls")
    listening = asyncio.create_task(line.run())
    await listening
    with pytest.raises(Lost):  # its own alone would be smaller than all that were shown before
        await found.figures()
    await line.close()
    door.close()
    door_end.close()


@pytest.mark.parametrize("early", [True, False])
async def test_it_ends_with_its_supervisor(early: bool) -> None:
    door, door_end = socket.socketpair()
    line, line_end = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge.workers", str(door_end.fileno()), str(line_end.fileno()),
        pass_fds=(door_end.fileno(), line_end.fileno()), stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    door_end.close()
    line_end.close()
    if early:
        line.close()
    async with asyncio.timeout(60):
        if not early:
            line.sendall(b"\0\0\0\x04\x93\0\xa1x\xc0"[:9])
            await asyncio.sleep(0.5)
            assert process.returncode is None
            line.close()
        _, said = await process.communicate()
    assert process.returncode == ORPHANED
    assert b"supervisor_lost" in said
    assert b"Traceback" not in said
    door.close()
