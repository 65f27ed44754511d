"""How long a final may be missing after somebody spoke, before the server is taken to hear nothing any more.

What is loud is not always speech, and a busy server may be slow; so patience learns. It is three times what the
server took for its latest final, and it grows whenever a new socket understood no more than the old one.
"""

from collections import deque
from typing import Final

from bridge.audio import mulaw

LEAST_S: Final = 8.0
MOST_S: Final = 256.0
"""Longer than loud audio is kept waiting for a final, see `watermark.LOUD_S`: then it was no speech."""

FLOOR_MOST_S: Final = 64.0
SPOKEN: Final = 3 * mulaw.SAMPLE_RATE
"""Samples of loud audio that make it likely that words were among them."""

LAG_FACTOR: Final = 3.0

TRIES: Final = 4
"""Sockets in a row that heard the same audio for longer and longer, two minutes in all, and understood nothing."""


class Patience:
    """Of one session. Told about once a second up to where audio was sent; `now` never goes back."""

    def __init__(self) -> None:
        self.seconds = LEAST_S
        self._floor = LEAST_S
        self._marks: deque[tuple[float, int]] = deque()  # when audio up to an offset had been sent
        self._losses = 0  # since the last final
        self._lost_at: int | None = None  # up to where audio had been sent when it was lost last

    def restart(self) -> None:
        """A new socket: nothing has been sent yet."""
        self._marks.clear()

    def mark(self, now: float, sent_until: int) -> int | None:
        """Audio up to `sent_until` was sent; returns the offset before which a final is due by now, if any."""
        self._marks.append((now, sent_until))
        while len(self._marks) > 1 and self._marks[1][0] <= now - self.seconds:
            self._marks.popleft()
        at, offset = self._marks[0]
        return offset if now - at >= self.seconds else None

    def lose(self) -> bool:
        """It is lost: the socket is given up, and the next one is given more time. True once that has not helped."""
        self._lost_at = self._marks[-1][1] if self._marks else 0
        self._losses += 1
        self.seconds = min(MOST_S, 2 * self.seconds)
        self._marks.clear()
        return self._losses == TRIES

    def final(self, start: int, end: int, now: float) -> None:
        """A final came for the audio from `start` to `end`."""
        self._losses = 0
        if self._lost_at is not None:
            in_vain = start >= self._lost_at  # there were no words in what was sent again
            self._floor = min(FLOOR_MOST_S, 2 * self._floor) if in_vain else LEAST_S
            self._lost_at = None
        sent_at = next((at for at, offset in self._marks if offset >= end), now)
        self.seconds = min(MOST_S, max(self._floor, LAG_FACTOR * (now - sent_at)))
