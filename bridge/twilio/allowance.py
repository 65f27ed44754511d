"""What one socket may bring in a given time: no more messages and no more audio than a telephone call has.

A call that stood still, here or on the way, brings what it owes at once: up to a minute of it is no offence.
Nothing is computed for a message. A count and a timestamp are compared; the clock is asked when they run out.
"""

from enum import Enum
from typing import Final

RATE: Final = 500
"""Messages a second. Both tracks of a call have 100."""

BURST: Final = 1000
"""Messages that may come at once when the socket is new."""

OWED_S: Final = 12.0
"""The longest time that is made up for: 6,000 messages, which a call owes after it stood still for a minute."""

AHEAD_S: Final = 5.0
"""A timestamp may be so far beyond the time that has passed since the upgrade; Twilio's are behind it."""

FAR_AHEAD_S: Final = 60.0
"""Beyond this it is no clock at all."""


class Ahead(Enum):
    """What to think of a timestamp."""

    NO = 0
    """It is one that can be."""
    YES = 1
    """It cannot be: the audio lies right after the last."""
    FAR = 2
    """Nor can anything else on this socket be relied on."""


class Allowance:
    """Counts for one socket, opened at `now`. Times are monotonic, in seconds.

    `speed` is how many times faster than time its audio may come: 1, unless calls are simulated.
    """

    def __init__(self, now: float, speed: float) -> None:
        self.messages = round(BURST * speed)
        """How many may come before `more` has to be asked."""
        self.believed_ms = -1
        """Timestamps up to here need not be checked."""
        self._speed = speed
        self._opened = now
        self._filled = now
        self._origin_ms: int | None = None  # the first timestamp: not every sender begins at 0

    def more(self, now: float) -> bool:
        """Whether one more message may come when all have: with it as many as the time since then has brought."""
        self.messages = round(min(now - self._filled, OWED_S) * RATE * self._speed) - 1
        self._filled = now
        return self.messages >= 0

    def ahead(self, timestamp_ms: int, now: float) -> Ahead:
        """Whether audio with this timestamp has come before it can have been spoken."""
        if self._origin_ms is None:
            self._origin_ms = timestamp_ms
        passed_s = (now - self._opened) * self._speed
        self.believed_ms = self._origin_ms + round((passed_s + AHEAD_S) * 1000)
        if timestamp_ms <= self.believed_ms:
            return Ahead.NO
        beyond_s = (timestamp_ms - self._origin_ms) / 1000 - passed_s
        return Ahead.FAR if beyond_s > FAR_AHEAD_S else Ahead.YES
