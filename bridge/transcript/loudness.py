"""How loud the audio was that a session has sent, for the few minutes in which a final of it can come. Pure."""

from array import array
from typing import Final

from bridge.audio import mulaw

BLOCK: Final = mulaw.SAMPLE_RATE // 4
"""Samples that one remembered peak stands for."""

KEPT: Final = 720
"""Blocks that are remembered, three minutes of them: a final comes within `watermark.LOUD_S`, two minutes."""


class Loudness:
    """Peaks of a journal's audio in samples at 8 kHz, in 1.5 kB whatever the call's length."""

    def __init__(self) -> None:
        self._peaks = array("H", bytes(2 * KEPT))  # of block n at n % KEPT
        self._from = self._until = 0  # what is known, in samples

    def sent(self, begin: int, end: int, peak: int) -> None:
        """Audio from `begin` to `end` was sent; its highest sample was `peak` (of 32767). May be sent again."""
        if begin > self._until or end <= self._from:  # a leap: nothing is known of what lies between
            self._from = self._until = begin
            self._peaks[begin // BLOCK % KEPT] = 0
        first, known = max(begin, self._from) // BLOCK, -(-self._until // BLOCK)
        for block in range(max(first, (end - 1) // BLOCK - KEPT + 1), (end - 1) // BLOCK + 1):
            at = block % KEPT
            before = self._peaks[at] if block < known else 0
            self._peaks[at] = max(before, min(peak, 0xFFFF))
        self._until = max(self._until, end)
        self._from = max(self._from, (self._until // BLOCK - KEPT + 1) * BLOCK)

    def peak(self, start: int, end: int, margin: int = 0) -> int | None:
        """The highest sample from `start` to `end`, and within `margin` of them as far as it is known.

        None when that audio was not sent, or too long ago.
        """
        if start < self._from or end > self._until or end <= start:
            return None
        first, last = max(start - margin, self._from), min(end + margin, self._until)
        return max(self._peaks[block % KEPT] for block in range(first // BLOCK, (last - 1) // BLOCK + 1))
