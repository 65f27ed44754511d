"""How calls go from one process to the next: everything that follows a call wherever it goes, as one part."""

import asyncio
from collections.abc import Callable
from typing import Any

from bridge.call.calls import Calls
from bridge.call.handover import Handover, Streams
from bridge.call.lifeline import Lifelines
from bridge.call.memo import About
from bridge.call.reaper import Reaper
from bridge.call.recovery import Recovery
from bridge.call.services import Services
from bridge.config import NumberSettings


class Relay:
    """The calls of this process, and who takes them up and hands them on.

    `shared`: other machines use the same outbox. `alone`: no other process of this one does. `possible`: Twilio's REST API can be used. `settings` gives those
    that hold for a call.
    """

    def __init__(
        self,
        services: Services,
        twilio: Streams,
        settings: Callable[[About], NumberSettings],
        *,
        shared: bool,
        alone: bool,
        possible: bool,
    ) -> None:
        self.lifelines = Lifelines(twilio, services.monotonic)
        self.calls = Calls(services, self.lifelines)
        self.recovery = Recovery(services, self.calls, settings)
        self.reaper = Reaper(services.outbox, self.calls, self.recovery, services.node, services.monotonic)
        self.handover = Handover(self.calls, self.reaper, twilio, shared=shared, possible=possible)
        self._shared = shared
        self._alone = alone and not shared
        self._tasks: list[asyncio.Task[Any]] = []

    async def begin(self) -> None:
        """Take up what other processes left, and go on doing so."""
        await self.recovery.begin()
        self._tasks.append(asyncio.create_task(self.recovery.run()))
        self._tasks.append(asyncio.create_task(self.reaper.run(alone=self._alone)))

    async def drain(self, deadline_s: float, hurry: asyncio.Event) -> None:
        """Take no more calls, wait for the live ones, and hand over those that are left at the deadline.

        With `hurry` set neither they nor their heirs are waited for.
        """
        self.recovery.taking = self.reaper.taking = False
        self.lifelines.streaming = self._shared  # this process takes no streams any more
        await self.calls.drain(deadline_s, hurry)
        await self.handover.run(hurry)
        await self.recovery.close()

    async def close(self) -> None:
        """Leave everything to the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.reaper.close()
        await self.recovery.close()
        await self.lifelines.close()
