"""What the processes of a bridge use while calls go through it."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Self

from bridge.local.load.process import Process

EVERY_S: Final = 1.0


class Watch:
    """Looks at these processes, together one bridge, while it is open: `async with Watch(pids, live) as watch`.

    `live` says how many calls there are. Raises UsageError for a process that cannot be seen.
    """

    def __init__(self, pids: Sequence[int], live: Callable[[], int]) -> None:
        self._processes = [Process(pid) for pid in dict.fromkeys(pids)]
        self._live = live
        self._cpu_s = 0.0
        self._before = self._most = (0, 0)
        self._calls = 0
        """When there were most."""

    async def __aenter__(self) -> Self:
        self._cpu_s, self._before = self._used(), self._memory()
        self._looking = asyncio.create_task(self._keep_looking())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._looking
        self._cpu_s = self._used() - self._cpu_s

    def figures(self, call_minutes: float) -> dict[str, object]:
        """What was used, all processes together, for so many minutes of calls; from first to last, beginnings included.

        Memory is what it grew by while there were most calls.
        """
        rss, anonymous = (
            round((most - before) / max(self._calls, 1), 1)
            for most, before in zip(self._most, self._before, strict=True)
        )
        return {
            "processes": len(self._processes),
            "cpu_s": round(self._cpu_s, 3),
            "cpu_ms_per_call_minute": round(1000 * self._cpu_s / call_minutes, 2) if call_minutes else None,
            "calls": self._calls,
            "rss_kb": self._most[0],
            "rss_kb_per_call": rss,
            "anonymous_kb_per_call": anonymous,
        }

    def look(self) -> None:
        """Note the memory, if there were never more calls than now."""
        if (calls := self._live()) and calls >= self._calls:
            self._calls, self._most = calls, self._memory()

    async def _keep_looking(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(EVERY_S)

    def _used(self) -> float:
        return sum(process.cpu_s for process in self._processes)

    def _memory(self) -> tuple[int, int]:
        told = [process.memory_kb for process in self._processes]
        return sum(rss for rss, _ in told), sum(anonymous for _, anonymous in told)
