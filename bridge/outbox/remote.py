"""The outbox of one machine as its workers have it: another process has the file, and is asked.

That process is the one that started the worker. When it is gone, the outbox is down for good.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import msgspec

from bridge import metrics
from bridge.outbox import wire
from bridge.outbox.lease import LaneLease
from bridge.outbox.outbox import Outbox, OutboxDown

UNDER_WAY = 1024
"""Requests that may wait for their answer; beyond it, callers are told that the outbox is down."""

ANSWER_S = 60.0
"""The longest wait for an answer: the host may be writing its file anew, 6 ms for each MB, as an operator had a call erased."""

_WAKING = frozenset({"publish", "retry", "release", "replay", "died"})


def remote_outbox(connection: socket.socket) -> Outbox:
    """The outbox of the `Host` that made this socket, not open yet. `close` closes the socket."""
    return cast("Outbox", _Remote(connection))  # its methods are those of the protocol, by their names


@dataclass(frozen=True, slots=True)
class _Request:
    method: wire.Method
    wakes: bool
    done: asyncio.Future[Any]


class _Remote(asyncio.Protocol):
    """Methods behave, and raise, as `Outbox` says; `open` and `close` are about the socket only."""

    poll_s = 0.25
    """As with PostgreSQL: lanes of a sibling become claimable that it cannot work off, or that it left behind."""

    def __init__(self, connection: socket.socket) -> None:
        self.wake = asyncio.Event()
        self._socket = connection
        self._frames = wire.Frames()
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Future[None] | None = None
        self._number = 0
        self._requests: dict[int, _Request] = {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name not in wire.METHODS:
            raise AttributeError(name)
        return partial(self._ask, name)

    async def open(self) -> None:
        """Begin to ask. Raises `OutboxDown`."""
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        try:
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            await loop.create_unix_connection(lambda: self, sock=self._socket)
        except OSError as error:
            raise OutboxDown(f"The outbox cannot be reached: {error}.") from error
        self.wake.set()

    async def close(self) -> None:
        """Wait for what was asked, then close the socket. May be called twice."""
        waiting = [request.done for request in self._requests.values() if not request.done.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=ANSWER_S)
        if self._transport is None or self._lost is None:
            self._socket.close()
            return
        self._transport.close()
        await self._lost

    async def publish(self, *args: Any, **kwargs: Any) -> list[LaneLease]:
        """Store events, lines and watermarks in one transaction, durable on return; leases of lanes that were idle."""
        with metrics.OUTBOX_PUBLISH_SECONDS.time():
            leases: list[LaneLease] = await self._ask("publish", *args, **kwargs)
        if kwargs.get("deliverer") and not leases:
            self.wake.set()
        return leases

    async def _ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        method = wire.METHODS[name]
        arguments = method.arguments(*args, **kwargs)
        if self._transport is None or self._transport.is_closing():
            raise OutboxDown("The outbox is not open, or the process that has it is gone.")
        if len(self._requests) >= UNDER_WAY:
            raise OutboxDown(f"The outbox does not keep up: {UNDER_WAY} requests wait for it.")
        self._number += 1
        frame = wire.frame(self._number, name, arguments)
        # What is published for one deliverer is leased to it, and so not to be claimed.
        wakes = name in _WAKING and getattr(arguments, "events", True) and not kwargs.get("deliverer")
        request = _Request(method, bool(wakes), asyncio.get_running_loop().create_future())
        self._requests[self._number] = request
        self._transport.write(frame)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await request.done
        except TimeoutError as error:
            raise OutboxDown(
                f"The process that has the outbox did not answer within {ANSWER_S:.0f} s."
            ) from error

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one by its methods only

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever it was: it is gone
        requests, self._requests = self._requests, {}
        for request in requests.values():
            if not request.done.done():
                request.done.set_exception(OutboxDown("The process that has the outbox is gone."))
        if self._lost is not None:
            self._lost.set_result(None)
        self.wake.set()  # who waits for lanes is to learn of it

    def data_received(self, data: bytes) -> None:
        for body in self._frames.cut(data):
            number, error, value = wire.unpacked(body)
            request = self._requests.pop(number)
            if request.wakes and not error:
                self.wake.set()  # also when who asked has given up
            if request.done.done():
                continue
            if error:
                request.done.set_exception(wire.ERRORS[error](msgspec.msgpack.decode(value, type=str)))
            else:
                request.done.set_result(request.method.answered.decode(value))
