"""Where a session connects next, and when: the first choice, or its fallback; backoff that fits the failure."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bridge.whisper.endpoint import Endpoint

TRIES: Final = 2
"""Failures in a row after which the other endpoint is tried, if there is one; then this one again."""

OPEN_S: Final = 10.0
OPEN_LONGEST_S: Final = 300.0
"""How long a handshake may take: at first enough for a server that runs. It doubles with every second one that
hangs, because a deployment scaled to zero lets it hang until a replica has booted; 253 s have been seen."""

BACKOFF_FIRST_S: Final = 0.25
BACKOFF_LONGEST_S: Final = 8.0

BUSY_FIRST_S: Final = 2.0
BUSY_LONGEST_S: Final = 15.0
"""After a 429 or 503 without `Retry-After`: capacity does not come back within a second."""

RETRY_AFTER_LONGEST_S: Final = 300.0
"""A `Retry-After` is believed up to here: a caller is on the line."""

FORBIDDEN_S: Final = 60.0
"""A refused key does not become valid by asking often."""

QUICK: Final = 3
QUICK_BACKOFF_S: Final = 30.0
"""Sockets in a row that were dropped at once: something is wrong that trying does not mend."""

FORBIDDEN: Final = frozenset({401, 403})
BUSY: Final = frozenset({429, 503})


@dataclass(slots=True)
class _Record:
    """How one endpoint treated this session since it last went well."""

    endpoint: Endpoint
    hung: int = 0
    busy: int = 0
    quick: int = 0


class Route:
    """Of one session. No I/O and no clock in here: `now` is seconds that never go back."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._records = [_Record(endpoint) for endpoint in endpoints]
        self._failures = 0  # in a row
        self._from = 0  # the endpoint that they began with

    def choose(self, now: float) -> tuple[int, float]:
        """The endpoint to try now, by its place in the list, and seconds to wait before asking again.

        One that must not be asked is passed over while the other may be.
        """
        count = len(self._records)
        first = (self._from + self._failures // TRIES) % count
        waits = {
            place: self._records[place].endpoint.breaker.wait_s(now)
            for place in ((first + n) % count for n in range(count))
        }
        place = min(waits, key=lambda each: waits[each])  # of equal waits the preferred one is the first
        return place, waits[place]

    def open_timeout_s(self, place: int) -> float:
        """How long the next handshake with an endpoint may take."""
        return min(OPEN_LONGEST_S, OPEN_S * 2.0 ** min(self._records[place].hung // TRIES, 16))

    def failed(
        self, place: int, now: float, *, status: int | None, retry_after_s: float | None, hung: bool
    ) -> float:
        """A connect failed; returns the seconds to wait before the next. `status` is the HTTP answer, if any."""
        record = self._records[place]
        self._failures += 1
        record.hung += hung
        record.busy += status in BUSY
        rests = self.rest(place, now, status=status, retry_after_s=retry_after_s)
        if len(self._records) > 1 and (rests or self._failures % TRIES == 0):
            return 0.0  # it is the other one's turn
        if status in BUSY and not rests:
            bound = min(BUSY_LONGEST_S, BUSY_FIRST_S * 2.0 ** min(record.busy - 1, 16))
            return _between(bound / 2, bound)
        return self._backoff()

    def rest(self, place: int, now: float, *, status: int | None, retry_after_s: float | None) -> bool:
        """Keep all sessions from an endpoint for the time that its answer asks for; whether it does."""
        seconds = min(retry_after_s or 0.0, RETRY_AFTER_LONGEST_S)
        if status in FORBIDDEN:
            seconds = FORBIDDEN_S
        self._records[place].endpoint.breaker.rest(now + seconds)
        return seconds > 0

    def moved(self, place: int) -> None:
        """A successor was opened with an endpoint, and takes over."""
        self._failures, self._from = 0, place

    def ended(self, place: int, *, worked: bool, quickly: bool) -> float:
        """A conversation ended before the session's end; returns the seconds to wait before the next connect.

        `worked`: the server had been of some use. `quickly`: it dropped the socket at once.
        """
        record = self._records[place]
        if worked:
            self._records[place] = _Record(record.endpoint)
            self._failures, self._from = 0, place
            record.endpoint.complained = False
            return self._backoff()
        self._failures += 1
        if quickly:
            record.quick += 1
            if record.quick >= QUICK:
                return _between(QUICK_BACKOFF_S / 2, QUICK_BACKOFF_S)
        return self._backoff()

    def is_hopeless(self, place: int) -> bool:
        """Whether an endpoint has dropped so many sockets at once that somebody should look at it."""
        return self._records[place].quick >= QUICK

    def _backoff(self) -> float:
        return _between(0.0, min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 16)))


def _between(least: float, most: float) -> float:
    """Jitter, so that the calls of one failure do not come back together."""
    return random.uniform(least, most)  # noqa: S311 - jitter, not cryptography
