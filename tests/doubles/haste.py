"""Time that passes faster: every wait of a Whisper session, divided by one factor.

Simulated speech may run many times faster than people talk; what is measured in seconds of the clock must then
be shorter by as much, or a scenario would show something that no call ever does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Final
from unittest import mock

from bridge.whisper import (
    breaker,
    conversation,
    dialler,
    ear,
    hold,
    lifespan,
    patience,
    route,
    session,
    socket,
    turnstile,
    vigil,
)

WAITS: Final[dict[ModuleType, tuple[str, ...]]] = {
    breaker: ("WINDOW_S", "REST_S", "ASK_AGAIN_S", "PROBE_S"),
    conversation: ("REJECTION_S", "ANSWER_S", "ACKNOWLEDGED_S", "HEALTH_CLOSE_S", "LOOK_S"),
    dialler: ("BACK_S", "AGAIN_S", "QUICK_S"),
    ear: ("REST_S",),
    hold: ("WAIT_S",),
    lifespan: ("SHORTEST_S", "SAME_S", "APART_S"),
    patience: ("LEAST_S", "MOST_S"),
    route: (
        *(
            "OPEN_S",
            "OPEN_LONGEST_S",
            "BACKOFF_FIRST_S",
            "BACKOFF_LONGEST_S",
            "BUSY_FIRST_S",
            "BUSY_LONGEST_S",
        ),
        *("RETRY_AFTER_LONGEST_S", "FORBIDDEN_S", "QUICK_BACKOFF_S"),
    ),
    session: ("PAUSE_S",),
    socket: ("PING_INTERVAL_S", "CLOSE_TIMEOUT_S"),
    vigil: ("ASK_S", "BLOCKED_S"),
}


@contextmanager
def haste(factor: float) -> Iterator[None]:
    """Let sessions that are made meanwhile wait `factor` times less."""
    changes = [
        mock.patch.object(module, name, getattr(module, name) / factor)
        for module, names in WAITS.items()
        for name in names
    ]
    places = round(turnstile.PER_SECOND * factor)
    changes.append(mock.patch.object(turnstile, "PER_SECOND", places))
    for change in changes:
        change.start()
    try:
        yield
    finally:
        for change in changes:
            change.stop()
