"""The outbox of one process for others of this machine: each has a socket to it, and asks as if it had it itself.

The sockets are nameless: there is no path that could be too long, be left over, or be found by somebody else.
"""

import asyncio
import contextlib
import socket
from collections import deque
from types import TracebackType
from typing import Self, cast

import msgspec

from bridge import log
from bridge.outbox import wire
from bridge.outbox.outbox import Outbox, OutboxDown

UNDER_WAY = 256
"""Requests of one client that are worked on at a time; while more of them wait, its socket is not read."""

_log = log.get(__name__)


class Host:
    """Answers for an open outbox. An async context manager: on leaving, every client is cut off."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._clients: set[_Client] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(client.close() for client in self._clients))

    async def connect(self) -> socket.socket:
        """A socket for one client: hand it to a child (`pass_fds`) for its `remote_outbox`, and close it here.

        When all copies of it are closed, as after the child's death, what was asked through it is given up.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            stack.callback(theirs.close)
            ours.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            _, client = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Client(self._outbox), sock=ours
            )
            stack.pop_all()
        self._clients.add(client)
        client.lost.add_done_callback(lambda _: self._clients.discard(client))
        return theirs


class _Client(asyncio.Protocol):
    """One socket, and what is asked through it."""

    def __init__(self, outbox: Outbox) -> None:
        self.lost = asyncio.get_running_loop().create_future()
        self._outbox = outbox
        self._frames = wire.Frames()
        self._requests: deque[tuple[int, str, msgspec.Raw]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport
        self._clogged = False  # it does not read its answers
        self._reading = True

    async def close(self) -> None:
        """Cut it off, and give up what it asked for."""
        self._transport.abort()  # not close(), which would wait for ever for a client that does not read
        await self.lost
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was: it is gone
        for task in self._tasks:
            task.cancel()
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._requests.extend(wire.unpacked(body) for body in self._frames.cut(data))
        except ValueError as error:
            _log.error("outbox_client_cut_off", error=str(error))
            self._transport.abort()
            return
        self._go_on()

    def pause_writing(self) -> None:
        self._clogged = True
        self._go_on()

    def resume_writing(self) -> None:
        self._clogged = False
        self._go_on()

    def _go_on(self) -> None:
        """Work on what was asked as far as there is room, and read no more while something waits."""
        if self._transport.is_closing():
            return
        while self._requests and not self._clogged and len(self._tasks) < UNDER_WAY:
            task = asyncio.create_task(self._answer(*self._requests.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._done)
        reading = not self._requests and not self._clogged
        if reading != self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()

    async def _answer(self, number: int, name: str, raw: msgspec.Raw) -> None:
        try:
            method = wire.METHODS[name]
            arguments = msgspec.structs.asdict(method.asked.decode(raw))
            result = await getattr(self._outbox, name)(**arguments)
            answer = wire.frame(number, "", result)
        except Exception as error:  # noqa: BLE001 - one request must not end the others; a mistake of ours is logged
            answer = wire.frame(number, *_told(name, error))
        self._transport.write(answer)


def _told(name: str, error: Exception) -> tuple[str, str]:
    """The class and the sentence of an error for who asked."""
    for kind in type(error).__mro__:
        if wire.ERRORS.get(kind.__name__) is kind:
            return kind.__name__, str(error)
    _log.error("outbox_host_crashed", method=name, exc_info=error)
    return OutboxDown.__name__, f"The outbox failed at {name}: see the log."
