"""How long a final may be missing after somebody spoke, before a witness is asked whether the server hears anything.

What is loud is not always speech, and a busy server may be slow; so patience learns. It is three times what the
server took for its latest final, and it grows whenever the witness understood no more.
"""

from collections import deque
from typing import Final

from bridge.audio import mulaw

LEAST_S: Final = 35.0
"""A healthy server may say nothing for 30 s: then it ends an utterance at the latest. The rest is for lag."""

MOST_S: Final = 90.0
"""Shorter than loud audio is kept waiting for a final, see `watermark.LOUD_S`: it can still be sent again."""

FLOOR_MOST_S: Final = 70.0
SPOKEN: Final = 3 * mulaw.SAMPLE_RATE
"""Samples of loud audio that make it likely that words were among them."""

LAG_FACTOR: Final = 3.0


class Patience:
    """Of one session. Told about once a second up to where audio was sent; `now` never goes back."""

    def __init__(self) -> None:
        self.seconds = LEAST_S
        self._floor = LEAST_S
        self._marks: deque[tuple[float, int]] = deque()  # when audio up to an offset had been sent
        self._heard_at = float("-inf")
        self._vain_until: int | None = None  # up to where audio had been sent when a witness heard no more

    def restart(self) -> None:
        """A new socket: nothing has been sent yet."""
        self._marks.clear()

    def mark(self, now: float, sent_until: int) -> int | None:
        """Audio up to `sent_until` was sent; returns the offset before which a final is due by now, if any."""
        self._marks.append((now, sent_until))
        while len(self._marks) > 1 and self._marks[1][0] <= now - self.seconds:
            self._marks.popleft()
        at, offset = self._marks[0]
        return offset if now - max(at, self._heard_at) >= self.seconds else None

    def partial(self, now: float) -> None:
        """The server understood a part of what is being said: it hears."""
        self._heard_at = now

    def in_vain(self) -> None:
        """A witness understood no more: the server is given more time."""
        self._vain_until = self._marks[-1][1] if self._marks else 0
        self.seconds = min(MOST_S, 2 * self.seconds)
        self._marks.clear()

    def final(self, start: int, end: int, now: float) -> None:
        """A final came for the audio from `start` to `end`."""
        if self._vain_until is not None:
            noise = start >= self._vain_until  # there were no words in what the witness was sent
            self._floor = min(FLOOR_MOST_S, 2 * self._floor) if noise else LEAST_S
            self._vain_until = None
        sent_at = next((at for at, offset in self._marks if offset >= end), now)
        self.seconds = min(MOST_S, max(self._floor, LAG_FACTOR * (now - sent_at)))
