"""What a process that is to end does with its live calls: each goes to another process, or waits for the next."""

import asyncio
from typing import Final, Protocol

from bridge import log, metrics
from bridge.call.call import Call
from bridge.call.calls import Calls
from bridge.call.lifeline import Twilio
from bridge.call.reaper import Reaper
from bridge.outbox.outbox import OutboxDown
from bridge.twilio.rest import RestFailed

INVITE_S: Final = 20.0
"""How long it may take to ask for one: ten are asked for each second, and Twilio may not answer."""

HEIR_S: Final = 10.0
"""How long a new stream may take to reach another process."""

PAUSE_S: Final = 10.0
"""How long it is waited then for a pause, in which one stream can take over from the other."""

FLUSH_S: Final = 8.0
"""How long the last finals may take."""

LOOK_S: Final = 0.25
"""How often the outbox is asked for heirs."""

STEP_S: Final = 0.02
"""How often a call is looked at for a pause."""

DRAINED: Final = "drained"
"""The `reason` of a call that nobody could go on with."""

_logger = log.get(__name__)


class Streams(Twilio, Protocol):
    """Who begins and ends streams of live calls. Every method raises `RestFailed`."""

    async def dismiss(self, call: Call) -> None:
        """End the call's present stream; the call goes on."""


class Handover:
    """`run` is called once. `shared`: other processes use the same outbox, and may take the calls now.

    `possible`: Twilio's REST API can be used, now or later; without it a call that we leave has ended for us.
    """

    def __init__(
        self, calls: Calls, reaper: Reaper, twilio: Streams, *, shared: bool, possible: bool
    ) -> None:
        self._calls = calls
        self._reaper = reaper
        self._twilio = twilio
        self._shared = shared
        self._possible = possible

    async def run(self, hurry: asyncio.Event) -> None:
        """Let every call go. With `hurry` set no heirs are waited for."""
        leaving = [asyncio.create_task(self._leave(call, hurry)) for call in self._calls if not call.ending]
        if not leaving:
            return
        _logger.info("handing_over", calls=len(leaving))
        beats = asyncio.create_task(self._beat())
        try:
            for defect in await asyncio.gather(*leaving, return_exceptions=True):
                if isinstance(defect, BaseException):
                    metrics.DEFECTS.inc()
                    _logger.error("handover_failed", exc_info=defect)
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)

    async def _beat(self) -> None:
        """Learn of heirs, if others can have the calls."""
        while self._shared:
            try:
                async with asyncio.timeout(HEIR_S / 2):
                    await self._reaper.beat()
            except (OutboxDown, TimeoutError) as error:
                _logger.warning("beat_failed", error=str(error) or "the outbox does not answer")
            await asyncio.sleep(LOOK_S)

    async def _leave(self, call: Call, hurry: asyncio.Event) -> None:
        if not self._possible:
            call.end(DRAINED)
        elif not self._shared:
            if not call.waiting:
                await self._let_go(call, wanted=False)
        elif call.waiting or hurry.is_set():
            await self._let_go(call, wanted=False)
        elif call.memo.mode == "connect":  # the next stream comes when this one is closed
            await self._pause(call, hurry)
            await self._let_go(call, wanted=True)
        elif await self._invited(call, hurry) and await self._has_heir(call, hurry):
            await self._pause(call, hurry)
            await self._let_go(call, wanted=True, beside=True)
        else:
            await self._let_go(call, wanted=False)

    async def _invited(self, call: Call, hurry: asyncio.Event) -> bool:
        asking, hurried = (
            asyncio.create_task(self._twilio.bring_back(call)),
            asyncio.create_task(hurry.wait()),
        )
        await asyncio.wait((asking, hurried), timeout=INVITE_S, return_when=asyncio.FIRST_COMPLETED)
        for task in (asking, hurried):
            task.cancel()
        failure = (await asyncio.gather(asking, hurried, return_exceptions=True))[0]
        if failure is None:
            return True
        if not isinstance(failure, RestFailed | asyncio.CancelledError):
            raise failure
        why = str(failure) or "Twilio's REST API does not answer"
        _logger.warning("call_not_handed_over", call_sid=call.about.call_sid, error=why)
        return False

    async def _has_heir(self, call: Call, hurry: asyncio.Event) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + HEIR_S
        while not call.ending and not hurry.is_set() and loop.time() < until:
            if self._reaper.heirs.get(call.about.call_sid):
                return True
            await asyncio.sleep(LOOK_S)
        return False

    @staticmethod
    async def _pause(call: Call, hurry: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + PAUSE_S
        while not (call.ending or call.pauses or hurry.is_set()) and loop.time() < until:  # noqa: ASYNC110 - nobody tells when a pause begins
            await asyncio.sleep(STEP_S)

    async def _let_go(self, call: Call, *, wanted: bool, beside: bool = False) -> None:
        if call.ending:
            return
        leaving = asyncio.create_task(call.let_go(FLUSH_S, wanted=wanted, beside=beside))
        metrics.HANDED_OVER.labels("heir" if wanted else "open").inc()
        if beside:
            await asyncio.sleep(0)  # nothing is taken from the old stream any more
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._twilio.dismiss(call)
            except (RestFailed, TimeoutError) as error:
                why = str(error) or "Twilio's REST API does not answer"
                _logger.warning("stream_not_stopped", call_sid=call.about.call_sid, error=why)
        await leaving
