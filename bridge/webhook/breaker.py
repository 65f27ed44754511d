"""Whether an endpoint may be posted to at all, and how much: beside the backoff of its lanes.

An endpoint that is down must not get the retries of hundreds of lanes, nor all of them at once when it
is back. Evidence counts lanes, not attempts: a lane whose event always fails proves nothing about the
endpoint, and an answer that is about the event proves that it is up. No I/O and no clock in here: `now` is seconds on any clock that never goes back.
"""

from dataclasses import dataclass

FAILED_LANES = 20
"""So many different lanes failed, and nothing was accepted in between: the endpoint is down."""

WINDOW_S = 30.0
WINDOW_LANES = 10
WINDOW_SHARE = 0.7
"""Or: of the lanes with a result in the last 30 s, 10 or more, this share had a failure as the latest."""

REMEMBERED = 1000
"""Latest results to keep: far more lanes than it takes to decide."""

OPEN_S = 5.0
OPEN_MOST_S = 60.0
"""How long nothing is sent before one lane tries again; doubled each time that it fails with an event that
is new. One that failed before may be the event's own fault, and a healthy call must not wait for that."""

UNPROVEN = 40
"""Lanes that may be taken up with nothing accepted since, so that an endpoint that hangs gets no more. Twice
`FAILED_LANES`: fewer than those have failed, so there is room again when the others end."""

PACE = 50.0
"""Lanes taken up per second after an outage."""

BURST = 10.0
"""Lanes that may be taken up at once then, and half of it what is waited for, to look ten times a second."""

CALM_S = 1.0
"""When less than `PACE` was wanted for so long, what waited is through."""

PACED_S = 30.0
"""The longest that it takes: a receiver that took 1,500 lanes in a row is well, and lanes that are due more
often than `PACE` would otherwise wait for each other for ever."""

QUIET_S = 900.0
"""What was seen so long ago counts no more. Longer than the longest wait of the schedule, with its jitter."""


@dataclass(slots=True)
class _Pace:
    """A bucket of tokens, one for each lane that is taken up."""

    began: float
    filled: float
    """When `tokens` was right."""
    wanted: float
    """When it was last empty."""
    tokens: float = BURST / 2

    def fill(self, now: float) -> None:
        self.tokens = min(BURST, self.tokens + (now - self.filled) * PACE)
        self.filled = now

    def take(self, now: float) -> None:
        self.tokens -= 1
        if self.tokens < 1:
            self.wanted = now

    def is_over(self, now: float) -> bool:
        return now - self.wanted >= CALM_S or now - self.began >= PACED_S

    def next(self) -> float:
        return self.filled + max(0.0, BURST / 2 - self.tokens) / PACE


class Breaker:
    """Of one endpoint. `most` lanes may be in work at a time.

    A lane in work is told of by `take`, `put_down`, and in between by `admits` before each POST and
    `succeeded` or `failed` after it. An answer that is about the event and not the endpoint is a success here.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._working: set[str] = set()
        self._unproven: set[str] = set()
        self._failed: set[str] = set()
        # In work since before the breaker closed: their failures are old news.
        self._stale: set[str] = set()
        # Lane -> when its latest result came, and whether that was a success; the oldest first.
        self._latest: dict[str, tuple[float, bool]] = {}
        self._failures = 0
        # Closed when None; else the time from which one lane may try.
        self._open_until: float | None = None
        self._open_s = 0.0
        self._probe: str | None = None
        self._pace: _Pace | None = None
        self._touched = 0.0

    @property
    def is_open(self) -> bool:
        """The endpoint is taken to be down."""
        return self._open_until is not None

    @property
    def is_calm(self) -> bool:
        """The endpoint is up, and nothing waits that could not be sent to it before."""
        return self._open_until is None and self._pace is None

    @property
    def working(self) -> int:
        """Lanes in work."""
        return len(self._working)

    def has(self, lane: str) -> bool:
        """Whether this lane is in work."""
        return lane in self._working

    def room(self, now: float) -> int:
        """How many more lanes may be taken up."""
        self._settle(now)
        room = UNPROVEN - len(self._unproven)
        if self._open_until is not None:
            room = int(self._probe is None and now >= self._open_until)
        elif self._pace is not None:
            room = min(room, int(self._pace.tokens))
        return max(0, min(room, self._most - len(self._working)))

    def moves_at(self, now: float) -> float | None:
        """When there is more room without any lane doing anything; None if never."""
        self._settle(now)
        if self._open_until is not None:
            return self._open_until if now < self._open_until else None
        if self._pace is not None and self._pace.tokens < 1:
            return self._pace.next()
        return None

    def take(self, lane: str, now: float) -> None:
        """A lane is taken up: there was room."""
        self._settle(now)
        self._touched = now
        self._working.add(lane)
        if self._open_until is not None:
            if self._probe is None and now >= self._open_until:
                self._probe = lane
            return
        self._unproven.add(lane)
        if self._pace is not None:
            self._pace.take(now)

    def admits(self, lane: str) -> bool:
        """Whether the lane may post its next event; if not, let it go."""
        return self._open_until is None or lane == self._probe

    def succeeded(self, lane: str, now: float) -> None:
        """The endpoint is up: it accepted the lane's event, or refused no more than that one.

        Closes the breaker if the lane was let through to try.
        """
        self._touched = now
        if self._open_until is not None:
            if lane != self._probe:
                return  # posted before it opened
            self._open_until = self._probe = None
            self._stale = self._working - {lane}
            self._pace = _Pace(began=now, filled=now, wanted=now)
        self._stale.discard(lane)
        self._failed.clear()
        self._unproven.clear()
        self._note(lane, now, success=True)

    def failed(self, lane: str, now: float, *, again: bool = False) -> None:
        """The lane's event failed, for the first time or `again`. Opens the breaker if that is enough."""
        self._touched = now
        if self._open_until is not None:
            if lane == self._probe:
                self._open(now, again=again)
            return
        if lane in self._stale:
            return
        self._failed.add(lane)
        self._note(lane, now, success=False)
        seen = len(self._latest)
        mostly = seen >= WINDOW_LANES and self._failures >= WINDOW_SHARE * seen
        if mostly or len(self._failed) >= FAILED_LANES:
            self._open(now, again=again)

    def put_down(self, lane: str) -> None:
        """The lane is in work no more."""
        self._working.discard(lane)
        self._stale.discard(lane)
        if lane not in self._failed:
            self._unproven.discard(lane)
        if lane == self._probe:
            self._probe = None

    def rests(self, now: float) -> bool:
        """Whether there is nothing to remember: a new breaker would do the same."""
        self._settle(now)
        if self._working:
            return False
        if now - self._touched >= QUIET_S:
            return True
        return not (self.is_open or self._pace or self._failed or self._failures)

    def _open(self, now: float, *, again: bool) -> None:
        self._open_s = min(2 * self._open_s, OPEN_MOST_S) if self._open_s and not again else OPEN_S
        self._open_until = now + self._open_s
        self._probe = self._pace = None
        for evidence in (self._failed, self._unproven, self._latest):
            evidence.clear()
        self._failures = 0

    def _settle(self, now: float) -> None:
        """Do what time does."""
        while self._latest:
            lane, (at, _) = next(iter(self._latest.items()))
            if now - at < WINDOW_S and len(self._latest) <= REMEMBERED:
                break
            self._forget(lane)
        if self._pace is not None:
            self._pace.fill(now)
            if self._pace.is_over(now):
                self._pace, self._open_s = None, 0.0

    def _note(self, lane: str, now: float, *, success: bool) -> None:
        self._forget(lane)
        self._latest[lane] = (now, success)
        self._failures += not success
        self._settle(now)

    def _forget(self, lane: str) -> None:
        _, success = self._latest.pop(lane, (0.0, True))
        self._failures -= not success
