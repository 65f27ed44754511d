"""When each frame of a stream is sent: on an absolute schedule, without waking a task for each."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Final

from bridge.local.twilio.script import Beat

AGAIN_S: Final = 0.005
"""Until a beat that could not be had is tried again."""


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
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._beat = Beat(0, 0.0)
        self._due = 0.0
        self._handle: asyncio.Handle | None = None
        self.begun = 0.0
        """When the schedule began (`time.monotonic()`: a loop's own clock may be as coarse as 1 ms)."""

    async def run(self) -> None:
        """Go through all beats. Raises what `act` raises, and TimeoutError when it could not be done in time."""
        self.begun = time.monotonic()
        self._following()
        try:
            await self._done
        finally:
            if self._handle:
                self._handle.cancel()

    def _following(self) -> None:
        beat = next(self._beats, None)
        if beat is None:
            self._done.set_result(None)
            return
        self._beat, self._due = beat, self.begun + beat.due_s
        wait = self._due - time.monotonic()
        # A beat that is overdue still lets everybody else have a turn.
        if wait > 0:
            self._handle = self._loop.call_later(wait, self._strike)
        else:
            self._handle = self._loop.call_soon(self._strike)

    def _strike(self) -> None:
        if self._done.done():  # cancelled: not even one more
            return
        late_s = time.monotonic() - self._due
        try:
            acted = self._act(self._beat.frame, max(0.0, late_s))
        except Exception as error:  # noqa: BLE001 - it is raised where the pacer was started
            if not self._done.done():  # it may have been cancelled by what failed
                self._done.set_exception(error)
            return
        if acted:
            self._following()
        elif late_s > self._patience_s:
            self._done.set_exception(TimeoutError())
        else:
            self._handle = self._loop.call_later(AGAIN_S, self._strike)
