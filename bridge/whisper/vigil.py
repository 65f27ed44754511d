"""Whether the server at the other end of a socket still lives, judged by what it says and what it takes.

A socket can be open, its pings answered, and nobody there: the process behind it has stopped reading, or it sends
an error message and then nothing more. Silence alone proves nothing, since a server says nothing about silence.
So it is asked.
"""

from enum import Enum, auto
from typing import Final

LOOK_S: Final = 1.0
"""How often to look."""

ASK_S: Final = 10.0
"""Silence after which the server is asked for its health, and the time that its answer may take."""

MISSES: Final = 2
REFUSALS: Final = 2
"""Answers in a row that are errors, after which a server is taken not to know the question."""

BLOCKED_S: Final = 2.0
"""The write buffer holds two seconds of audio; when it is full and not one byte leaves it for so long again,
nobody reads."""


class Verdict(Enum):
    """What to do."""

    FINE = auto()
    ASK = auto()
    """Send a health check."""
    BLOCKED = auto()
    """Cut it: it takes no more bytes."""
    UNANSWERED = auto()
    """Cut it: it does not answer."""


class Vigil:
    """Over one socket. No clock in here: `now` is seconds that never go back."""

    def __init__(self, now: float, *, knows_health: bool | None) -> None:
        self._knows = knows_health
        self._heard_at = now
        self._asked_at: float | None = None
        self._misses = 0
        self._refusals = 0
        self._alarmed = False
        self._unsent = 0
        self._blocked_at: float | None = None

    @property
    def asking(self) -> bool:
        """Whether a question is unanswered."""
        return self._asked_at is not None

    def heard(self, now: float) -> None:
        """The server said something."""
        self._heard_at = now
        self._asked_at = None
        self._misses = 0
        self._refusals = 0
        self._alarmed = False

    def answered(self, now: float) -> None:
        """It answered a health check."""
        self.heard(now)
        self._knows = True

    def error(self, now: float) -> None:
        """It sent an error: the answer to a question that it does not know, or the last thing it does."""
        refusals = self._refusals + self.asking
        self.heard(now)
        self._refusals = refusals
        self._alarmed = True
        if self._knows is None and refusals >= REFUSALS:
            self._knows = False

    def look(self, now: float, *, unsent: int, writable: bool) -> Verdict:
        """Judge. `unsent` are the bytes that wait in the socket's write buffer."""
        stuck = not writable and unsent >= self._unsent
        self._unsent = unsent
        if not stuck:
            self._blocked_at = None
        elif self._blocked_at is None:
            self._blocked_at = now
        elif now - self._blocked_at >= BLOCKED_S:
            return Verdict.BLOCKED
        return self._health(now)

    def _health(self, now: float) -> Verdict:
        if self._knows is False:
            return Verdict.FINE
        if self._asked_at is None:
            if not self._alarmed and now - self._heard_at < ASK_S:
                return Verdict.FINE
        elif now - self._asked_at < ASK_S:
            return Verdict.FINE
        else:
            self._misses += 1
            if self._misses >= MISSES:
                if self._knows or self._alarmed:
                    return Verdict.UNANSWERED
                self._knows = False  # an older server: its silence proves nothing
                return Verdict.FINE
        self._asked_at = now
        return Verdict.ASK
