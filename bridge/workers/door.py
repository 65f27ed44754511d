"""How a connection goes from the process that accepts it to the one that serves it: the descriptor itself is sent.

One byte for each, so that one receives as many bytes as descriptors (SCM_RIGHTS).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, Self

from bridge import log

AT_ONCE: Final = 64
"""Connections that are taken before anything else is done."""

CROWDED_S: Final = 0.5
"""How long nothing is received after the system had no descriptor for a connection."""

_ONE: Final = b"."

_logger = log.get(__name__)


def send(door: socket.socket, connection: socket.socket) -> bool:
    """Pass a connection on, of which the caller closes his copy; False if it cannot be taken now.

    Raises `OSError` when it never will be.
    """
    try:
        return socket.send_fds(door, [_ONE], [connection.fileno()]) == len(_ONE)
    except BlockingIOError:
        return False


class Door:
    """Where a worker receives connections. A context manager: on leaving it receives no more."""

    def __init__(self, end: socket.socket, taken: Callable[[socket.socket], None]) -> None:
        self.count = 0
        """Connections that have come, those too that were lost for want of a descriptor."""
        self._end = end
        self._taken = taken
        self._again: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._end.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        if self._again is not None:
            self._again.cancel()
        asyncio.get_running_loop().remove_reader(self._end.fileno())
        self._end.close()

    @property
    def crowded(self) -> bool:
        """Whether connections wait, for want of a descriptor."""
        return self._again is not None

    def _open(self) -> None:
        self._again = None
        asyncio.get_running_loop().add_reader(self._end.fileno(), self._receive)

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                byte, descriptors, _, _ = socket.recv_fds(self._end, len(_ONE), 1)
            except BlockingIOError:
                return
            except OSError:
                byte, descriptors = b"", []
            self.count += len(byte)
            for descriptor in descriptors:
                connection = socket.socket(fileno=descriptor)
                with contextlib.ExitStack() as stack:
                    stack.callback(connection.close)
                    connection.setblocking(False)  # noqa: FBT003 - the standard library's own signature
                    self._taken(connection)
                    stack.pop_all()
            if not byte:  # nobody sends any more
                asyncio.get_running_loop().remove_reader(self._end.fileno())
                return
            if not descriptors:  # this one is lost; those behind it wait
                _logger.error("connection_not_accepted", error="no descriptor is free for it")
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._end.fileno())
                self._again = loop.call_later(CROWDED_S, self._open)
                return
