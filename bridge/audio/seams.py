"""Where a journal's offsets lie on the call's clock.

Between two seams both advance together. There is a seam at a track's first sample, one wherever audio is
missing, and one where Twilio's timestamps and the silence that was added for a pause do not agree.
"""

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

LONGEST: Final = 1 << 20
"""Bytes of the file that are read, at most: twenty thousand seams. A call has a few."""


class Seam(NamedTuple):
    """All in samples. Nothing is missing before a seam whose `missing_from` is its `clock`."""

    offset: int
    clock: int
    missing_from: int
    """Where the audio before it ended, on the call's clock."""


class Seams:
    """The seams of one journal, in the order of their offsets."""

    def __init__(self, seams: Iterable[Seam] = ()) -> None:
        self._seams = list(seams)
        self._last = self._seams[-1] if self._seams else Seam(0, 0, 0)

    @classmethod
    def parse(cls, text: str, end: int) -> Self:
        """What `lines` wrote, as far as it can be read: nothing that lies at `end` or beyond, where no audio is.

        Of two seams at one offset the later holds, as no audio came between them.
        """
        found: dict[int, Seam] = {}
        last = 0
        for line in text.split("\n")[:-1]:  # what has no end was torn
            try:
                offset, clock, missing_from = map(int, line.split())
            except ValueError:
                continue
            if last <= offset < end and 0 <= missing_from <= clock:
                found[offset] = Seam(offset, clock, missing_from)
                last = offset
        return cls(found.values())

    def lines(self) -> str:
        """The text that `parse` reads; the lines of several belong one after another."""
        return "".join(f"{seam.offset} {seam.clock} {seam.missing_from}\n" for seam in self._seams)

    def add(self, seam: Seam) -> None:
        """Add one that lies behind the others, or at the last."""
        self._last = seam
        self._seams.append(seam)

    def clock(self, offset: int) -> int:
        """Where an offset lies on the call's clock."""
        seam = self._last
        if offset < seam.offset:
            index = bisect_right(self._seams, offset, key=_offset) - 1
            seam = self._seams[max(index, 0)]
        return seam.clock + offset - seam.offset

    def offset(self, clock: int) -> int:
        """The first offset that lies at `clock` on the call's clock, or later."""
        for seam, following in itertools.pairwise(self._seams):
            if clock < seam.clock + following.offset - seam.offset:
                return seam.offset + max(0, clock - seam.clock)
        return self._last.offset + max(0, clock - self._last.clock)

    @property
    def gaps(self) -> list[Seam]:
        """Those before which audio is missing."""
        return [seam for seam in self._seams if seam.missing_from < seam.clock]


def _offset(seam: Seam) -> int:
    return seam.offset
