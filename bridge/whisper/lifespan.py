"""How long a server lets a socket live, learned from how its sockets end.

No deployment tells its limit, and close codes for it differ. But a limit shows: sockets that were opened at
different times are dropped at the same age.
"""

from collections import deque
from typing import Final

SHORTEST_S: Final = 20.0
"""Sockets that die younger have other reasons."""

SAME_S: Final = 1.0
SAME_SHARE: Final = 0.01
"""Ages that differ by less than the larger of these are the same."""

PROOFS: Final = 3
"""Drops in a row at the same age that show a limit: two may be chance."""

APART_S: Final = 5.0
"""Sockets that are dropped closer together fell for one reason, a restart: that is one proof."""

ROTATE_AT: Final = 0.9
"""The share of its life at which a socket's successor is looked for; there is a pause before the rest is over."""


class Lifespan:
    """Of the sockets of one endpoint. No clock in here: `now` is seconds that never go back."""

    def __init__(self) -> None:
        self.limit_s: float | None = None
        self._last: deque[tuple[float, float]] = deque(
            maxlen=PROOFS
        )  # when sockets were dropped, and their ages

    def dropped(self, age_s: float, now: float) -> bool:
        """The server dropped a socket of that age; True when that tells of a limit that was not known."""
        if self.limit_s is not None and age_s > self.limit_s + _tolerance(self.limit_s):
            self.limit_s = None  # it outlived what was taken for the limit
        if age_s < SHORTEST_S or (self._last and now - self._last[-1][0] < APART_S):
            return False
        self._last.append((now, age_s))
        ages = [age for _, age in self._last]
        if len(ages) < PROOFS or max(ages) - min(ages) > _tolerance(age_s):
            return False
        known, self.limit_s = self.limit_s, min(ages)
        return known is None

    def is_old(self, age_s: float) -> bool:
        """Whether a socket of that age should have a successor."""
        return self.limit_s is not None and age_s >= ROTATE_AT * self.limit_s


def _tolerance(age_s: float) -> float:
    return max(SAME_S, SAME_SHARE * age_s)
