"""Which numbers of calls a system is measured with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LEVELS: Final = (10, *range(50, 1201, 50))

COARSE: Final = 100
"""Calls from level to level while a system has time to spare: nothing happens there."""

AT_EASE: Final = 0.5
"""The share of a processor up to which it has: twice as many calls are not too many then."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Those that were asked for, in rising order; None: those that tell most."""

    asked: Sequence[int] | None = None

    @property
    def levels(self) -> Sequence[int]:
        """All that there may be."""
        return LEVELS if self.asked is None else self.asked

    def after(self, calls: int, busy: float) -> int | None:
        """The level after this one, which used such a share of a processor; None after the last. 0: the first."""
        for level in self.levels:
            if level > calls and (self.asked or not calls or busy > AT_EASE or level % COARSE == 0):
                return level
        return None
