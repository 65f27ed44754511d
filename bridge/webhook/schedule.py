"""When an event is tried again, and when it is given up. No clock in here: `now` is passed in.

After each failure the lane (one call at one endpoint) waits; a lane in backoff delays no other.
"""

from collections.abc import Callable
from email.utils import parsedate_to_datetime

STEPS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
"""The wait before each attempt: a live agent wants the first retries dense. Then every `LAST_S`."""

LAST_S = 600.0
JITTER = 0.2
"""Each wait is varied by up to this share, so that lanes that failed together do not return together."""

THROTTLED_S = 5.0
"""The least base of a wait after a 429 or a timeout: the receiver has too much to do already."""

RETRY_AFTER_S = (1.0, 3600.0)
"""The bounds within which a receiver's `Retry-After` is honoured."""

GIVE_UP_S = 72 * 3600.0


def wait_s(
    failures: int,
    random: Callable[[], float],
    *,
    throttled: bool = False,
    retry_after_s: float | None = None,
) -> float:
    """Seconds to wait after the event's `failures`-th (1, 2 ...) failed attempt in a row.

    `random` gives 0 to 1. What the receiver asked for (`retry_after_s`) comes before the schedule.
    """
    if retry_after_s is not None:
        shortest, longest = RETRY_AFTER_S
        return min(max(retry_after_s, shortest), longest)
    base = STEPS_S[failures] if failures < len(STEPS_S) else LAST_S
    if throttled:
        base = max(base, THROTTLED_S)
    return base * (1 + JITTER * (2 * random() - 1))


def is_spent(
    now: float, *, failures: int, first_failure: float, created_at: float, down: bool = False
) -> bool:
    """Whether an event that just failed is given up: 72 h of outage lie behind it.

    The outage began at `first_failure`, the lane's first since something was accepted, or for this
    event when it was created. Each event gets the dense part of the schedule all the same, so that one
    that the receiver will never accept does not take the next ones with it; unless the whole endpoint is
    `down`, where hardly anything is sent.
    """
    outage_s = now - max(first_failure, created_at)
    return outage_s >= GIVE_UP_S and (down or failures >= len(STEPS_S))


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds that a `Retry-After` header asks for (RFC 9110 10.2.3: seconds or a date); None if it makes no sense."""
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None
