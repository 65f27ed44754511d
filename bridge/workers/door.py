"""How a connection goes from the process that accepts it to the one that serves it: the descriptor itself is sent.

One byte for each, so that one receives as many bytes as descriptors (SCM_RIGHTS).
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final, Self

AT_ONCE: Final = 64
"""Connections that are taken before anything else is done."""

_ONE: Final = b"."


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
        self._end = end
        self._taken = taken

    def __enter__(self) -> Self:
        self._end.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        asyncio.get_running_loop().add_reader(self._end.fileno(), self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._end.fileno())
        self._end.close()

    def _receive(self) -> None:
        for _ in range(AT_ONCE):
            try:
                byte, descriptors, _, _ = socket.recv_fds(self._end, len(_ONE), 1)
            except BlockingIOError:
                return
            except OSError:
                byte, descriptors = b"", []
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
