"""When each frame of a stream is sent: on an absolute schedule, by one clock for all streams of an event loop."""

import asyncio
import time
from collections.abc import Callable, Iterator
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import Final
from weakref import WeakKeyDictionary

from bridge.local.twilio.script import Beat

GRAIN_S: Final = 0.001
"""Between two looks at what is due, at least: a loop's timers are no finer."""

TURN: Final = 64
"""Beats in a row, before everybody else in the loop has a turn."""

AGAIN_S: Final = 0.005
"""Until a beat that could not be had is tried again."""

_ids = count()


class Clock:
    """Strikes the pacers of one event loop, each when its next beat is due; sleeps while none has any."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Pacer]] = []
        self._timer: asyncio.Handle | None = None
        self._wakes_at = float("inf")

    @staticmethod
    def here() -> "Clock":
        """The one of the running loop."""
        loop = asyncio.get_running_loop()
        return _clocks.get(loop) or _clocks.setdefault(loop, Clock())

    def add(self, due: float, pacer: "Pacer") -> None:
        """Strike this pacer at `due` (`time.monotonic()`), and then when it says, until it says nothing."""
        heappush(self._due, (due, next(_ids), pacer))
        self._wake(due)

    def _run(self) -> None:
        now, self._wakes_at, self._timer = time.monotonic(), float("inf"), None
        pacers = self._due
        for _ in range(TURN):
            if not pacers or pacers[0][0] > now:
                break
            _, order, pacer = pacers[0]
            following = pacer.strike()
            if following is None:
                heappop(pacers)
            else:
                heapreplace(pacers, (following, order, pacer))
        if pacers:
            self._wake(pacers[0][0])

    def _wake(self, due: float) -> None:
        """Run when this is due; what is overdue still lets everybody else have a turn."""
        if due >= self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wakes_at, wait, loop = due, due - time.monotonic(), asyncio.get_running_loop()
        if wait > 0:
            self._timer = loop.call_later(max(wait, GRAIN_S), self._run)
        else:
            self._timer = loop.call_soon(self._run)


_clocks: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Clock]] = WeakKeyDictionary()


class Pacer:
    """Calls `act(frame, late_s)` at each beat: one object, one `run`.

    `late_s` is how far behind the schedule that is. `act` returns whether it could be done; if not, it is asked
    again, for at most `patience_s`.
    """

    def __init__(
        self, beats: Iterator[Beat], act: Callable[[int, float], bool], *, patience_s: float
    ) -> None:
        self._beats = beats
        self._act = act
        self._patience_s = patience_s
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frame = 0
        self._due = 0.0
        self.begun = 0.0
        """When the schedule began (`time.monotonic()`: a loop's own clock may be as coarse as 1 ms)."""

    async def run(self) -> None:
        """Go through all beats. Raises what `act` raises, and TimeoutError when it could not be done in time."""
        self.begun = time.monotonic()
        due = self._following()
        if due is not None:
            Clock.here().add(due, self)
        await self._done

    def strike(self) -> float | None:
        """Act; returns when to do so next (`time.monotonic()`), None for never. For the clock only."""
        if self._done.done():  # cancelled: not even one more
            return None
        now = time.monotonic()
        late_s = now - self._due
        try:
            acted = self._act(self._frame, late_s)
        except Exception as error:  # noqa: BLE001 - it is raised where the pacer was started
            if not self._done.done():  # it may have been cancelled by what failed
                self._done.set_exception(error)
            return None
        if acted:
            return self._following()
        if late_s > self._patience_s:
            self._done.set_exception(TimeoutError())
            return None
        return now + AGAIN_S

    def _following(self) -> float | None:
        beat = next(self._beats, None)
        if beat is None:
            self._done.set_result(None)
            return None
        self._frame, due_s = beat
        self._due = self.begun + due_s
        return self._due
