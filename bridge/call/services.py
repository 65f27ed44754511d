"""What every call of this process shares."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from bridge.audio.tick import Tick
from bridge.call.journals import Journals
from bridge.outbox.outbox import Outbox
from bridge.webhook.delivery import Delivery
from bridge.webhook.partials import Partials
from bridge.whisper.ear import Ear
from bridge.whisper.endpoint import Endpoints


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the process that calls work with."""

    node: str
    """This process, as the outbox knows it: one life of it."""
    outbox: Outbox
    delivery: Delivery
    tick: Tick
    ear: Ear
    endpoints: Endpoints
    partials: Partials
    journals: Journals
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
