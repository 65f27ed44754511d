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

FULL_S: Final = 0.02
"""How long nothing is accepted after no worker could take a connection: it reads its door more often than this."""

_logger = log.get(__name__)


class Entrance:
    """Of a listening socket; closed at first. `ready` are the workers that take connections, the next one first."""

    def __init__(self, listener: socket.socket, ready: Callable[[], Sequence[Child]]) -> None:
        self._listener = listener
        self._ready = ready
        self._turn = 0
        self._open = False
        self._held: socket.socket | None = None  # accepted, and not taken yet
        self._again: asyncio.TimerHandle | None = None

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
            if self._held is not None:
                self._accept()

    def close(self) -> None:
        """Accept no more. The listening socket stays as it is."""
        self._wait()
        if self._held is not None:
            self._held.close()
            self._held = None

    def _wait(self, again_s: float = 0.0) -> None:
        """Let connections wait: for so long, or until somebody opens again."""
        if self._again is not None:
            self._again.cancel()
            self._again = None
        loop = asyncio.get_running_loop()
        if self._open:
            self._open = False
            loop.remove_reader(self._listener.fileno())
        if again_s:
            self._again = loop.call_later(again_s, self.open)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            ready = self._ready()
            if not ready:
                self._wait()
                return
            try:
                connection = self._held or self._listener.accept()[0]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                _logger.error("connection_not_accepted", error=error.strerror or str(error))
                self._wait(CROWDED_S)
                return
            self._turn += 1
            if not any(child.take(connection, self._turn) for child in ready):
                self._held = connection
                self._wait(FULL_S)
                return
            self._held = None
            connection.close()
