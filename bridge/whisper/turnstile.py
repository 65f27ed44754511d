"""How many sockets this process may ask for: when a server comes back, not all calls storm it together."""

from collections import deque
from typing import Final

PER_SECOND: Final = 20


class Turnstile:
    """Gives out places: at most `PER_SECOND` of them within any second. `now` never goes back."""

    def __init__(self) -> None:
        self._places: deque[float] = deque(maxlen=PER_SECOND)

    def wait_s(self, now: float) -> float:
        """Take the next place; seconds until it is there."""
        place = now
        if len(self._places) == PER_SECOND:
            place = max(now, self._places[0] + 1.0)
        self._places.append(place)
        return place - now
