"""Which worker gets the next connection: the one with the fewest media streams."""

from dataclasses import dataclass
from typing import Final

import msgspec

SILENT_S: Final = 3.0
"""A worker that has not reported for so long stands still: it reports once a second, and when something changes."""


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What a worker says of itself."""

    load: int
    """Media streams that it has, and connections that have not shown yet whether they are some."""
    taken: int
    """Connections that have come to it, ever."""
    taking: bool
    """Whether it takes new calls: else it is about to end."""
    fullness: int = 0
    """0: it has a place for a new call; 1: only for such as it keeps one for; 2: for none."""
    unsure: int = 0
    """How many of its load are connections that have not shown yet what they are."""


NOTHING: Final = Report(0, 0, taking=True)


@dataclass(slots=True)
class Standing:
    """What the supervisor knows of a worker. Times are monotonic, in seconds."""

    heard_at: float
    """When it reported last."""
    report: Report = NOTHING
    passed: int = 0
    """Connections that were passed to it."""
    turn: int = 0
    """When the last one was: smaller is longer ago."""

    @property
    def streams(self) -> int:
        """Those that it certainly has."""
        return self.report.load - self.report.unsure

    @property
    def load(self) -> int:
        """Its streams; what is on its way to it counts as one."""
        return self.report.load + max(0, self.passed - self.report.taken)

    def pass_on(self, turn: int) -> None:
        """A connection was passed to it."""
        self.passed += 1
        self.turn = turn


def rank(standing: Standing, now: float) -> tuple[bool, bool, int, int, int, int]:
    """By what workers are sorted: the first is to have the next connection, the second if that one cannot take it.

    Of two with the same load the one with fewer streams is first: the rest of it is mostly questions just answered.
    """
    stands_still = now - standing.heard_at >= SILENT_S
    report = standing.report
    return not report.taking, stands_still, report.fullness, standing.load, standing.streams, standing.turn
