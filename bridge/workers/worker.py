"""One of several processes that take calls: a whole bridge, whose connections and outbox its supervisor has."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from socket import socket
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

from bridge import log, loop
from bridge.config import Config
from bridge.errors import BridgeError
from bridge.listener import runner_of
from bridge.outbox.remote import remote_outbox
from bridge.outbox.store import outbox_of
from bridge.serve import joined, raise_open_files
from bridge.workers import child as told
from bridge.workers import figures
from bridge.workers.balance import Report
from bridge.workers.child import Failed
from bridge.workers.company import ASK_S, Answer, Streams
from bridge.workers.door import Door
from bridge.workers.figures import Family
from bridge.workers.line import Line, Lost
from bridge.workers.setup import Setup

SET_UP_S: Final = 30.0
"""How long a worker waits to be told what it is."""

NEW_S: Final = 2.0
"""A connection that has brought no request within this time counts as no stream any more."""

LOOK_S: Final = 0.1
"""How often it is looked whether streams have ended."""

REPORTS_S: Final = 1.0
"""At least so often the supervisor hears how things are, and what was counted: a dead worker cannot be asked."""

ORPHANED: Final = 1
"""The exit code of a worker whose supervisor is gone."""

_logger = log.get(__name__)


class Worker:
    """The `Company` of a worker, which takes no more calls when `stop` is set. `run` is its task."""

    alone = False

    def __init__(
        self,
        setup: Setup,
        config: Config,
        line: Line,
        door: socket,
        outbox: socket | None,
        *,
        stop: asyncio.Event,
    ) -> None:
        self.node = setup.node
        self.port = setup.port
        self.outbox = outbox_of(config) if outbox is None else remote_outbox(outbox)
        self._stop = stop
        self._line = line
        self._door = Door(door, self._received)
        self._streams: Streams
        self._new: dict[RequestHandler, float] = {}  # connections without a request, and since when
        self._taking: set[asyncio.Task[None]] = set()
        self._told: Report | None = None
        self._runner: web.AppRunner

    def answer(self, answers: Mapping[str, Answer]) -> None:
        """Answer what the others ask."""
        self._line.answers |= answers

    async def serve(self, app: web.Application, streams: Streams) -> web.AppRunner:
        """Take connections from the supervisor."""
        app.middlewares.append(self._show)
        app.on_response_prepare.append(self._one_request_each)
        self._streams = streams
        streams.changed = self._report
        self._runner = runner_of(app)
        await self._runner.setup()
        return self._runner

    async def ask(self, what: str, about: Any = None, *, timeout_s: float = ASK_S) -> list[Any]:
        """Ask the others, through the supervisor."""
        try:
            answers = await self._line.ask(told.SIBLINGS, (what, about, timeout_s), timeout_s=timeout_s + 1)
        except Lost:
            return []
        return answers if isinstance(answers, list) else []

    def tell(self, what: str, about: Any = None) -> None:
        """Tell the others, through the supervisor."""
        self._line.tell(told.OTHERS, (what, about))

    async def figures(self) -> bytes:
        """Of all workers, as the supervisor has them: those of one alone would look as if counters went back."""
        if isinstance(text := await self._line.ask(told.FIGURES, figures.read()), bytes):
            return text
        raise Lost("the supervisor has no figures")

    async def run(self) -> None:
        """Take connections, and say how busy this worker is, for ever."""
        with self._door:
            self._line.tell(told.READY)
            counted_at = -REPORTS_S
            while True:
                now = time.monotonic()
                self._new = {each: since for each, since in self._new.items() if now - since < NEW_S}
                if now - counted_at >= REPORTS_S:
                    counted_at, self._told = now, None
                    self._line.tell(told.COUNTED, figures.read())
                self._report()
                await asyncio.sleep(LOOK_S)

    def _received(self, connection: socket) -> None:
        task = asyncio.create_task(self._connect(connection))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _connect(self, connection: socket) -> None:
        server = self._runner.server
        if server is None:  # it has just been closed
            connection.close()
            return

        def made() -> RequestHandler:
            protocol: RequestHandler = server()
            self._new[protocol] = time.monotonic()
            return protocol

        try:
            await asyncio.get_running_loop().connect_accepted_socket(made, connection)
        except OSError:  # the other side was quick to go
            connection.close()

    @web.middleware
    async def _show(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A connection has shown what it is: if a stream, it is counted as one now.

        That is told before the answer goes out: what Twilio sends upon it is led by how things are then.
        """
        self._new.pop(request.protocol, None)
        asyncio.get_running_loop().call_soon(self._report)  # when the handler has noted its stream
        try:
            return await handler(request)
        finally:
            self._report()

    @staticmethod
    async def _one_request_each(_request: web.Request, response: web.StreamResponse) -> None:
        """Close every connection behind its answer: a proxy would put a stream on one that happens to be open."""
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            response.force_close()
            response.headers["Connection"] = "close"

    def _report(self) -> None:
        report = Report(
            len(self._streams) + len(self._new),
            self._door.count,
            taking=not self._stop.is_set(),
            fullness=2 if self._door.crowded else self._streams.fullness,
            unsure=len(self._new),
        )
        if report != self._told:
            self._told = report
            self._line.tell(told.REPORT, report)


async def work(door: socket, line_end: socket, outbox: socket | None) -> int:
    """Be a worker until told to end; the exit code."""
    set_up: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    stop, hurry = asyncio.Event(), asyncio.Event()

    async def told_what(about: Any) -> None:
        set_up.set_result(about)

    line = Line(
        {
            told.SET_UP: told_what,
            told.DRAIN: _setting(stop),
            told.HURRY: _setting(stop, hurry),
            told.COUNT: _counted,
        }
    )
    await line.open(line_end)
    listening = asyncio.create_task(line.run())
    listening.add_done_callback(_orphaned)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with asyncio.timeout(SET_UP_S):
        setup = msgspec.convert(await set_up, Setup)
    log.configure(worker=setup.number)
    config = setup.read()
    worker = Worker(setup, config, line, door, outbox, stop=stop)
    try:
        async with joined(config, worker) as bridge:
            running = asyncio.create_task(worker.run())
            loop.rarely_collect()
            try:
                await stop.wait()
                await bridge.drain(hurry)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
    except BridgeError as error:
        line.tell(told.FAILED, Failed(str(error), error.exit_code))
        return error.exit_code
    finally:
        listening.cancel()
        await line.close()
    return 0


def main() -> None:
    """Run the worker that the command line's descriptors belong to."""
    log.configure()
    raise_open_files()
    door, line, *outbox = (socket(fileno=int(number)) for number in sys.argv[1:])
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        code = runner.run(work(door, line, outbox[0] if outbox else None))
    sys.exit(code)


async def _counted(_: Any) -> list[Family]:
    return figures.read()


def _setting(*events: asyncio.Event) -> Answer:
    async def set_all(_: Any) -> None:
        for event in events:
            event.set()

    return set_all


def _orphaned(listening: asyncio.Task[None]) -> None:
    """End as if killed when the supervisor is gone: calls stay on the disk for whoever is started next."""
    if not listening.cancelled():
        _logger.error("supervisor_lost")
        os._exit(ORPHANED)
