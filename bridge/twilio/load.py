"""How busy this process is, and how many calls it can carry."""

from collections import deque
from typing import Final, NamedTuple

MOST: Final = 0.85
"""Of one core: Python runs on one. Beyond it audio waits for its turn (livekit/sip stops at 0.9)."""

WINDOW_S: Final = 5.0
"""The time that it is measured over: a new call costs more in its first second than in all the others."""

TRUSTED_CALLS: Final = 20
"""From so many calls on their own cost is known. With fewer, what the process costs without any weighs too much."""

PRIOR: Final = 0.01
"""Of one core for a call, until it is known: twice what the benchmark of added delay measures on two slow cores."""


class _Sample(NamedTuple):
    at: float
    cpu_s: float
    calls: int


class Load:
    """Judges samples that are taken about once a second. Sans-I/O."""

    def __init__(self) -> None:
        self.used = 0.0
        """Cores that the process used over the last seconds."""
        self.capacity = int(MOST / PRIOR)
        """Calls that it can carry: by what they cost, as last seen with enough of them."""
        self._samples: deque[_Sample] = deque()

    @property
    def busy(self) -> bool:
        """Whether it does as much as it can."""
        return self.used >= MOST

    def sample(self, now: float, cpu_s: float, calls: int) -> None:
        """Processor time that the process has used in all its life, and its live calls `now` (monotonic, seconds)."""
        samples = self._samples
        samples.append(_Sample(now, cpu_s, calls))
        while len(samples) > 2 and now - samples[1].at >= WINDOW_S:
            samples.popleft()
        first = samples[0]
        passed = now - first.at
        # A process that has just begun did nothing before that: its first second may be busy as any other.
        self.used = max(0.0, cpu_s - first.cpu_s) / max(passed, WINDOW_S)
        mean = sum(each.calls for each in samples) / len(samples)
        if mean >= TRUSTED_CALLS and self.used > 0 and passed >= WINDOW_S:
            self.capacity = max(TRUSTED_CALLS, int(MOST * mean / self.used))
