"""Where the calls of attached numbers go on, as far as this process knows."""

import asyncio
import dataclasses
import time
from collections.abc import Callable
from typing import Final

from bridge import log
from bridge.config import CallFlow, NumberSettings
from bridge.outbox.attachments import Attachments
from bridge.outbox.outbox import OutboxDown

LOOK_S: Final = 1.0
"""How long a call may wait for the outbox; Twilio waits 15 s for the whole answer."""

REFRESH_S: Final = 5.0
"""How long a number may go on as before when it is attached to something else on another machine."""

_logger = log.get(__name__)


class CallFlows:
    """The call flows of the attached numbers, from the outbox. `run` keeps them up to date.

    While the outbox is down, what was known last counts.
    """

    def __init__(self, outbox: Attachments, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._outbox = outbox
        self._monotonic = monotonic
        self._known: dict[str, CallFlow] = {}
        self._read_at = float("-inf")
        self._down = False
        self._reading = asyncio.Lock()

    async def applied_to(self, settings: NumberSettings) -> NumberSettings:
        """The settings of a number with its call flow: the configuration's own, or else what it was attached with.

        Raises nothing, and takes `LOOK_S` at most.
        """
        if settings.then:
            return settings
        if settings.number not in self._known:
            await self._look()
        return dataclasses.replace(settings, then=self._known.get(settings.number, settings.then))

    async def run(self) -> None:
        """Read them again and again, until this is cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(REFRESH_S)

    async def _look(self) -> None:
        """Read them, unless somebody began to do so after this was asked for."""
        asked_at = self._monotonic()
        try:
            async with asyncio.timeout(LOOK_S), self._reading:
                if self._read_at > asked_at:
                    return
                began_at = self._monotonic()
                attached = await self._outbox.attached()
                self._read_at = began_at
        except (OutboxDown, TimeoutError) as error:
            if not self._down:  # said once, and not for each call
                _logger.warning("call_flows_stale", reason=str(error) or "the outbox does not answer")
            self._down = True
            return
        self._down = False
        self._known = {each.number: _flow(each.then, each.then_method) for each in attached}


def _flow(then: str, method: str) -> CallFlow:
    return CallFlow(then, "GET" if method == "GET" else "POST")
