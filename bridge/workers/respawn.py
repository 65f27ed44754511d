"""How long it takes until a worker that has died is replaced: no time, unless it does little else than die."""

from typing import Final

SHORT_S: Final = 10.0
"""Who lives no longer than this will probably die again."""

FIRST_S: Final = 1.0
LAST_S: Final = 30.0


def pause_s(before_s: float, lived_s: float) -> float:
    """The pause after a life of `lived_s`, before which there was one of `before_s`."""
    if lived_s >= SHORT_S:
        return 0.0
    return min(max(2 * before_s, FIRST_S), LAST_S)
