"""Where connections come in: each is led to the worker that is to have it, and waits while there is none."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Final

from bridge import log
from bridge.workers.child import Child

AT_ONCE: Final = 64
"""Connections that are accepted before anything else is done."""

CROWDED_S: Final = 0.5
"""How long nothing is accepted after the system has refused to: it lacks descriptors or memory."""

_logger = log.get(__name__)


class Entrance:
    """Of a listening socket; closed at first. `ready` are the workers that take connections, the next one first."""

    def __init__(self, listener: socket.socket, ready: Callable[[], Sequence[Child]]) -> None:
        self._listener = listener
        self._ready = ready
        self._turn = 0
        self._open = False

    @property
    def port(self) -> int:
        """Where it is."""
        port: int = self._listener.getsockname()[1]
        return port

    def open(self) -> None:
        """Accept connections. Open already, it stays so."""
        if not self._open:
            self._open = True
            self._listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Let connections wait. The listening socket stays as it is."""
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            ready = self._ready()
            if not ready:  # until somebody opens again
                self.close()
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                _logger.error("connection_not_accepted", error=error.strerror or str(error))
                self.close()
                asyncio.get_running_loop().call_later(CROWDED_S, self.open)
                return
            with connection:
                self._turn += 1
                if not any(child.take(connection, self._turn) for child in ready):
                    _logger.warning("connection_dropped", reason="no worker takes one")
