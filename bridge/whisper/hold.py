"""Finals that wait for an earlier one, so that they are published in the order of time.

A server that transcribes utterances side by side may finish a later one first. If that were published, and the
socket dropped before the earlier one came, its words would count as settled.
"""

from collections.abc import Callable
from typing import Final

from bridge.audio import mulaw
from bridge.transcript.heard import Heard

WAIT_S: Final = 5.0
ROOM: Final = 16
"""Finals that may wait; when there are more, the earliest waits no longer."""

ONSET: Final = mulaw.SAMPLE_RATE * 3 // 10
"""Whisper gives a word's beginning up to this much too late."""

SPOKEN: Final = mulaw.SAMPLE_RATE * 3 // 20
"""Samples of loud audio between two finals from which on a word may be missing."""


class Hold:
    """Of one socket. No clock in here: `now` is seconds that never go back."""

    def __init__(self) -> None:
        self._waiting: list[tuple[float, Heard]] = []  # until when, and what; in the order of time

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, heard: Heard, now: float) -> None:
        """A final came."""
        self._waiting.append((now + WAIT_S, heard))
        self._waiting.sort(key=lambda each: each[1].start)

    def next(self, now: float, misses: Callable[[Heard], bool]) -> tuple[Heard, bool] | None:
        """The next final to publish, and whether it has waited in vain; None while the earliest waits.

        `misses` says whether there should be another one before it.
        """
        if not self._waiting:
            return None
        until, heard = self._waiting[0]
        in_vain = misses(heard)
        if in_vain and now < until and len(self._waiting) <= ROOM:
            return None
        del self._waiting[0]
        return heard, in_vain
