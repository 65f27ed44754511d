"""How long processes had to wait for a processor: what came meanwhile could have no exacter place."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

LOOK_S: Final = 0.1
"""What a process waits within this time, at several turns perhaps, counts as one stall."""


class Stalls:
    """Of these processes, whichever there are at a time, and of their children. `run` is its task."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self.longest_ms = 0.0
        self._pids = pids
        self._waited: dict[int, int] = {}
        self._looked_at = time.monotonic()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            self._look()
            await asyncio.sleep(LOOK_S)

    def _look(self) -> None:
        waited, now = dict(_waited_ns(self._pids())), time.monotonic()
        part = min(1.0, LOOK_S / (now - self._looked_at))  # this task may have been late itself
        for pid, now_ns in waited.items():
            self.longest_ms = max(self.longest_ms, part * (now_ns - self._waited.get(pid, now_ns)) / 1e6)
        self._waited, self._looked_at = waited, now


def _waited_ns(pids: Iterable[int]) -> Iterator[tuple[int, int]]:
    for pid in pids:
        try:
            yield pid, int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # it has just ended, or this system does not tell
            continue
        yield from _waited_ns(map(int, children))
