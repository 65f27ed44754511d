"""What every call of this process shares."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.audio.tick import Tick
from bridge.outbox.outbox import Outbox
from bridge.webhook.partials import Partials
from bridge.whisper.endpoint import Endpoints


@dataclass(frozen=True, slots=True)
class Journals:
    """Where the calls' audio lies: one directory a call, in it one a track."""

    root: Path
    node: str
    """Part of every name: what another process left of the same call stays as it is."""

    def directory(self, call_sid: str) -> Path:
        """The directory of a call."""
        return self.root / f"{call_sid}.{self.node[:8]}"

    def left_behind(self) -> int:
        """How many calls other processes left without having finalised all of their audio."""
        return sum(1 for path in self.root.glob("CA*.*") if not path.name.endswith(self.node[:8]))

    def discard(self, call_sid: str) -> None:
        """Remove a call's directory once its tracks have removed theirs."""
        with contextlib.suppress(OSError):  # something is left in it, and stays
            self.directory(call_sid).rmdir()


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the process that calls work with."""

    outbox: Outbox
    tick: Tick
    endpoints: Endpoints
    partials: Partials
    journals: Journals
    node: str
    """This process's name in the outbox."""
    wall: Callable[[], float]
    """Seconds since 1970, for the timestamps of events."""
    monotonic: Callable[[], float]
    """Seconds, for durations."""
    tasks: set[asyncio.Task[None]]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work that outlives the task which asks for it; ends with the process at the latest."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Wait for what was spawned."""
        await asyncio.gather(*self.tasks, return_exceptions=True)
