"""How long a final may be missing after somebody spoke, before a witness is asked whether the server hears anything.

A busy server may be slow, so patience learns: it is three times what the server took for its latest final. And not
all speech can be understood, a song for one: patience doubles whenever the witness understood no more.
"""

from array import array
from bisect import bisect_right
from typing import Final

from bridge.audio import mulaw

LEAST_S: Final = 35.0
"""A healthy server may say nothing for 30 s: then it ends an utterance at the latest. The rest is for lag."""

MOST_S: Final = 90.0
"""Shorter than loud audio is kept waiting for a final, see `watermark.LOUD_S`: it can still be sent again."""

SPOKEN: Final = 3 * mulaw.SAMPLE_RATE
"""Samples of speech that make it sure that words were among them: twelve kinds of music without a singer gave 0.3 s a
minute at most, and a person who says anything at all says this much within half a minute."""

LAG_FACTOR: Final = 3.0


class Patience:
    """Of one session. Told about once a second up to where audio was sent; `now` never goes back."""

    def __init__(self) -> None:
        self.seconds = LEAST_S
        # When audio up to an offset had been sent, second by second: as arrays, for there are many sessions.
        self._at, self._offsets = array("d"), array("q")
        self._heard_at = float("-inf")

    def restart(self) -> None:
        """A new socket: nothing has been sent yet."""
        del self._at[:], self._offsets[:]

    def mark(self, now: float, sent_until: int) -> int | None:
        """Audio up to `sent_until` was sent; returns the offset before which a final is due by now, if any."""
        self._at.append(now)
        self._offsets.append(sent_until)
        old = max(0, bisect_right(self._at, now - self.seconds) - 1)
        del self._at[:old], self._offsets[:old]
        return self._offsets[0] if now - max(self._at[0], self._heard_at) >= self.seconds else None

    def partial(self, now: float) -> None:
        """The server understood a part of what is being said: it hears."""
        self._heard_at = now

    def in_vain(self) -> None:
        """A witness understood no more: the server is given more time."""
        self.seconds = min(MOST_S, 2 * self.seconds)
        self.restart()

    def final(self, end: int, now: float) -> None:
        """A final came for audio up to `end`."""
        sent_at = next((at for at, offset in zip(self._at, self._offsets, strict=True) if offset >= end), now)
        self.seconds = min(MOST_S, max(LEAST_S, LAG_FACTOR * (now - sent_at)))
