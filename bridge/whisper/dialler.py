"""Opens the sockets of one session: waits its turn, turns to the fallback and back, and makes ready a successor.

A successor is opened while the present socket still works: because that one will soon be as old as its server
lets sockets be, or because it belongs to the fallback and the first choice may be back.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Final

from bridge import log, metrics
from bridge.whisper.breaker import REST_S
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.route import Route
from bridge.whisper.socket import ConnectFailed, WhisperSocket

BACK_S: Final = 30.0
BACK_LONGEST_S: Final = 480.0
"""How often a session on the fallback asks the first choice for a socket, varied by half. It doubles each time
that it went back in vain: a first choice that opens sockets and does not work."""

AGAIN_S: Final = 5.0
"""How soon a successor is tried again that could not be opened, where the present socket is to be relieved."""

QUICK_S: Final = 2.0
"""A socket that lived no longer, and on which the server said nothing, is none."""


@dataclass(frozen=True, slots=True)
class Line:
    """A socket, and where it leads."""

    socket: WhisperSocket
    endpoint: Endpoint
    place: int
    """Of the endpoint in the list: 0 is the first choice."""
    opened_at: float


class Dialler:
    """Of one session. `close` ends what it has begun."""

    def __init__(self, endpoints: tuple[Endpoint, ...], logger: log.Logger) -> None:
        self._endpoints = endpoints
        self._route = Route(endpoints)
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._present: Line | None = None
        self._successor: asyncio.Task[Line | None] | None = None
        self._successor_at = 0.0  # not tried before
        self._back_s = BACK_S
        self._pause_s = 0.0
        self._asked = False  # for the first socket nobody waits: calls that begin are no storm
        self._told: set[tuple[int, int | None]] = set()  # what was said of sockets that cannot be had

    async def open(self) -> Line:
        """The successor, if one is ready; else a new socket, however long that takes."""
        line = await self._take_successor()
        while line is None:
            await asyncio.sleep(self._pause_s)
            place, wait_s = self._route.choose(self._loop.time())
            if wait_s:
                self._pause_s = _varied(wait_s, 1.0)
            else:
                self._pause_s = 0.0
                line = await self._try(place)
        before, self._present = self._present.place if self._present else 0, line
        if line.place != before:
            self._logger.warning(
                "whisper_failover" if line.place else "whisper_failback", host=line.endpoint.host
            )
            metrics.WHISPER_FAILOVERS.labels("fallback" if line.place else "first").inc()
        self._told.clear()
        self._successor_at = self._loop.time() + _varied(self._back_s, 0.5) if line.place else 0.0
        return line

    def ended(self, line: Line, *, dropped: bool, worked: bool, idle: bool) -> None:
        """A line's conversation ended before its time, by the server if `dropped`.

        `worked`: it had been of use; `idle`: nobody had spoken, so there was no use for it.
        """
        now = self._loop.time()
        age_s, endpoint = now - line.opened_at, line.endpoint
        if dropped and endpoint.lifespan.dropped(age_s, now):
            self._logger.info("whisper_limit", host=endpoint.host, seconds=round(age_s))
        quickly = age_s < QUICK_S
        worked = worked or (idle and not quickly)
        if line.place == 0:
            self._back_s = BACK_S if worked else min(BACK_LONGEST_S, 2 * self._back_s)
        self._pause_s = self._route.ended(line.place, worked=worked, quickly=quickly)
        if quickly and not worked and endpoint.breaker.useless(now):
            self._tell_breaker(endpoint)
        if self._route.is_hopeless(line.place) and not endpoint.complained:
            endpoint.complained = True
            self._logger.error(
                "whisper_useless", host=endpoint.host, hint="check whisper.dialect and the deployment"
            )

    def ask_at_once(self) -> None:
        """Do not wait before the next try: it asks something else."""
        self._pause_s = 0.0

    def successor(self) -> float | None:
        """Have a successor opened if one is wanted; once it is there, how long it has been, in seconds."""
        line, now = self._present, self._loop.time()
        if self._successor is not None and self._successor.done():
            if (ready := self._successor.result()) is not None:
                return now - ready.opened_at
            self._successor = None
            self._successor_at = now + (
                _varied(BACK_S, 0.5) if line and line.place else _varied(AGAIN_S, 1.0)
            )
        if self._successor is None and line is not None and now >= self._successor_at:
            wanted = line.place > 0 or line.endpoint.lifespan.is_old(now - line.opened_at)
            if wanted and not self._endpoints[0].breaker.wait_s(now):
                self._successor = asyncio.create_task(self._try(0, in_place=True))
        return None

    async def second(self) -> Line | None:
        """One more socket to where the present one leads; None when there is none to be had now."""
        return None if self._present is None else await self._try(self._present.place, in_place=True)

    async def close(self) -> None:
        """Give up the successor."""
        if (line := await self._take_successor()) is not None:
            line.socket.abort()

    async def _take_successor(self) -> Line | None:
        """The successor if it is there; one that is on its way is given up."""
        task, self._successor = self._successor, None
        if task is None:
            return None
        task.cancel()  # without effect on one that is done
        (line,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(line, Line):
            return None
        self._route.moved(line.place)
        return line

    async def _try(self, place: int, *, in_place: bool = False) -> Line | None:
        """Ask an endpoint for a socket once; None when it did not give one, which `_pause_s` then accounts for.

        `in_place`: for a successor, whose failure changes nothing.
        """
        endpoint, breaker = self._endpoints[place], self._endpoints[place].breaker
        if self._asked:
            await asyncio.sleep(endpoint.turnstile.wait_s(self._loop.time()))
        self._asked = True
        if breaker.wait_s(self._loop.time()):
            return None  # it tripped in the queue
        attempt = breaker.begin(self._loop.time())
        try:
            socket = await WhisperSocket.connect(
                endpoint.url, api_key=endpoint.api_key, timeout=self._route.open_timeout_s(place)
            )
        except ConnectFailed as error:
            now = self._loop.time()
            if breaker.end(attempt, now, opened=False):
                self._tell_breaker(endpoint)
            metrics.WHISPER_CONNECTS.labels(str(error.status or "unreachable")).inc()
            status, retry_after_s = error.status, error.retry_after_s
            if in_place:
                self._route.rest(place, now, status=status, retry_after_s=retry_after_s)
                return None
            self._pause_s = self._route.failed(
                place, now, status=status, retry_after_s=retry_after_s, hung=error.hung
            )
            if (place, status) not in self._told:
                self._told.add((place, status))
                self._logger.warning("whisper_unreachable", host=endpoint.host, error=str(error))
            return None
        except BaseException:
            breaker.cancel(attempt)
            raise
        metrics.WHISPER_CONNECTS.labels("open").inc()
        breaker.end(attempt, self._loop.time(), opened=True)
        return Line(socket, endpoint, place, self._loop.time())

    def _tell_breaker(self, endpoint: Endpoint) -> None:
        self._logger.warning("whisper_breaker_open", host=endpoint.host, seconds=REST_S)


def _varied(seconds: float, share: float) -> float:
    """Up to `share` longer, so that calls that waited for the same do not all come at once."""
    return seconds * random.uniform(1.0, 1.0 + share)  # noqa: S311 - jitter, not cryptography
