"""Whether an endpoint may be asked for another socket: one answer for all calls of this process.

When half of the connects fail, nobody asks for a while; then two may try every ten seconds, and the first that succeeds lets all
others follow. Meanwhile audio is journalled as ever. No clock in here: `now` is seconds that never go back.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 30.0
ENOUGH: Final = 20
"""Connects within the window before any judgement: a single call that cannot get through trips nothing."""

FAILED_SHARE: Final = 0.5
REST_S: Final = 10.0
PROBES: Final = 2
"""Connects that may be under way while it is not known whether the endpoint is back."""

PROBE_S: Final = 10.0
"""A connect that takes longer hangs: it may be waited for, but it keeps nobody else from trying."""

REMEMBERED: Final = 1000
"""Outcomes kept: more than the 20 connects a second that a process makes give within the window."""

ASK_AGAIN_S: Final = 0.5
"""When to ask again while others try."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A connect that is under way."""

    trips: int
    """How often the breaker had tripped when it began: what began before that proves nothing about now."""
    at: float
    """When it began."""


class Breaker:
    """Of one endpoint. Ask `wait_s`; then tell of each attempt with `begin`, and `end` or `cancel`."""

    def __init__(self) -> None:
        self._outcomes: deque[tuple[float, bool]] = deque(maxlen=REMEMBERED)
        self._trips = 0
        self._tripped = False
        self._until = 0.0  # nobody asks before
        self._under_way: list[float] = []  # when the attempts began, of those since it tripped last

    def wait_s(self, now: float) -> float:
        """Seconds until another attempt may begin, or this should be asked again; 0 for now."""
        if now < self._until:
            return self._until - now
        if not self._tripped:
            return 0.0
        probes = sum(now - began < PROBE_S for began in self._under_way)
        return ASK_AGAIN_S if probes >= PROBES else 0.0

    def begin(self, now: float) -> Attempt:
        """An attempt to open a socket begins."""
        self._under_way.append(now)
        return Attempt(self._trips, now)

    def cancel(self, attempt: Attempt) -> None:
        """It was abandoned by us, which says nothing."""
        if attempt.trips == self._trips:
            self._under_way.remove(attempt.at)

    def end(self, attempt: Attempt, now: float, *, opened: bool) -> bool:
        """It opened a socket, or failed. True when that tripped the breaker."""
        self.cancel(attempt)
        if opened:
            if self._tripped:
                self._tripped, self._until = False, 0.0
                self._outcomes.clear()
            return self._note(now, opened=True)
        if not self._tripped:
            return self._note(now, opened=False)
        if attempt.trips == self._trips:
            self._trip(now)
        return False

    def useless(self, now: float) -> bool:
        """A socket that had opened was dropped at once. True when that tripped the breaker."""
        return not self._tripped and self._note(now, opened=False)

    def rest(self, until: float) -> None:
        """The endpoint asked for time, or has to be given it: nobody asks before `until`."""
        self._until = max(self._until, until)

    def _note(self, now: float, *, opened: bool) -> bool:
        self._outcomes.append((now, opened))
        while self._outcomes[0][0] <= now - WINDOW_S:
            self._outcomes.popleft()
        failed = sum(not each for _, each in self._outcomes)
        if len(self._outcomes) < ENOUGH or failed < FAILED_SHARE * len(self._outcomes):
            return False
        self._trip(now)
        return True

    def _trip(self, now: float) -> None:
        self._tripped = True
        self._trips += 1
        self._under_way.clear()
        self._outcomes.clear()
        self.rest(now + REST_S)
