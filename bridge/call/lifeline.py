"""Calls without a stream: finds out what became of them, and has those that go on streamed again."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

from bridge import log, metrics
from bridge.twilio.live import Fate
from bridge.twilio.rest import RestFailed

if TYPE_CHECKING:
    from bridge.call.call import Call

TRIES: Final = 5
"""Streams that are asked for before a call is given up, if none of them lasts."""

ALONE_S: Final = 60.0
"""How long a call that nobody had is kept open without a stream, and without a word from Twilio."""

CUT_S: Final = 2.0
"""The same for a call whose stream broke off: where Twilio cannot be asked, nearly all of these are over.

One that Twilio is only too busy to tell of has as long as the other: many break off at a time, and it refuses some.
"""

ASK_FIRST_S: Final = 2.0
ASK_LAST_S: Final = 30.0
"""Between two questions about a call that goes on."""

LOST: Final = "bridge_lost"
"""The `reason` of a call that ended while no process had it, or of which nothing can be learned."""

HUNG_UP: Final = "hangup"
"""The `reason` of one that ended while its stream was broken."""

FAILED: Final = "reattach_failed"
"""The `reason` of one that may go on, though not with us."""

_logger = log.get(__name__)


class Twilio(Protocol):
    """Who knows what became of a call, and can have it streamed. Every method raises `RestFailed`."""

    async def fate(self, call_sid: str) -> Fate:
        """What became of a call."""

    async def bring_back(self, call: "Call") -> None:
        """Ask for a stream of a call that was streamed before; it comes some time later, here or elsewhere."""


class Lifelines:
    """Sees to each call that has no stream until it has one again, or has ended. `close` ends its tasks."""

    def __init__(self, twilio: Twilio, monotonic: Callable[[], float]) -> None:
        self.streaming = True
        """Whether streams are asked for; there may be nobody any more who takes them."""
        self._twilio = twilio
        self._monotonic = monotonic
        self._tasks: set[asyncio.Task[None]] = set()

    def alone(self, call: "Call") -> None:
        """The call has no stream any more."""
        self._spawn(self._see_through(call))

    def mute(self, call: "Call") -> None:
        """The call's stream has brought nothing for a while: it may be dead, or the caller on hold."""
        self._spawn(self._ask_about(call))

    async def close(self) -> None:
        """Leave the calls to the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            metrics.DEFECTS.inc()
            _logger.error("recovery_failed", exc_info=defect)

    async def _see_through(self, call: "Call") -> None:
        """Ask, and act upon the answer, until a stream comes or the call ends."""
        logger, carrier = _logger.bind(call_sid=call.about.call_sid), call.carrier
        generation, asked, said = carrier.generation, 0, ""
        pause_s, heard_at = ASK_FIRST_S, self._monotonic()
        patience_s = CUT_S if carrier.cut_for else ALONE_S
        # A broken stream of a `<Connect>` makes Twilio come by itself.
        comes = call.memo.mode == "connect"
        while True:
            fate: Fate | None = None
            try:
                fate = await self._twilio.fate(call.about.call_sid)
                heard_at = self._monotonic()
            except RestFailed as error:
                patience_s = ALONE_S if error.busy else patience_s
                if said != (said := str(error)):
                    logger.warning("call_fate_unknown", error=said)
            if not call.waiting or carrier.generation != generation:
                break
            wanted = self.streaming and not comes and carrier.tries < TRIES
            if fate is not None and fate.streamable and wanted:
                asked += 1
                await self._bring_back(call, logger)
            elif fate is not None:
                self._judge(call, fate)
            elif self._monotonic() - heard_at >= patience_s:
                call.give_up(carrier.cut_for or LOST)
            comes = False
            if call.waiting:
                await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ASK_LAST_S)
        if asked and not call.ending:
            metrics.REATTACHED.labels("streamed").inc()

    @staticmethod
    def _judge(call: "Call", fate: Fate) -> None:
        """End a call that is over, or was asked for in vain often enough."""
        if fate.over:
            call.give_up(HUNG_UP if call.carrier.cut_for else LOST, fate.ended_at)
        elif call.carrier.tries >= TRIES:
            metrics.REATTACHED.labels("failed").inc()
            call.give_up(FAILED)

    async def _bring_back(self, call: "Call", logger: log.Logger) -> None:
        call.carrier.tries += 1
        try:
            await self._twilio.bring_back(call)
        except RestFailed as error:
            if error.passing and not error.unsure:  # Twilio has not even been asked, or did not listen
                call.carrier.tries -= 1
            metrics.REATTACHED.labels("refused").inc()
            logger.warning("reattach_refused", error=str(error))
        else:
            logger.info("reattach_asked", tries=call.carrier.tries)

    async def _ask_about(self, call: "Call") -> None:
        generation = call.carrier.generation
        try:
            fate = await self._twilio.fate(call.about.call_sid)
        except RestFailed as error:
            _logger.warning("call_fate_unknown", call_sid=call.about.call_sid, error=str(error))
            return
        if call.carrier.generation != generation:
            return
        if fate.over:
            call.give_up(HUNG_UP, fate.ended_at)
        else:
            call.carrier.confirmed()
