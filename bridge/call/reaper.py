"""Says that this process lives, lets go of calls that are no longer its own, and takes those of dead ones."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from bridge import log, metrics
from bridge.call.calls import Calls
from bridge.call.recovery import SILENT_S, Recovery
from bridge.outbox.lease import Fenced
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.ownership import Known, Ownership

BEAT_S: Final = 2.0
"""How often this process says that it lives, and looks for those that do not."""

ANSWER_S: Final = 5.0
"""How long the outbox may take to answer."""

AT_ONCE: Final = 50
"""Calls that are taken over in one look."""

ALL: Final = 10_000
"""The same of a process that is alone: more than the one before it had. Whoever else there is need not have a share."""

SPREAD_S: Final = 2.0
"""Takers wait up to so long, at random: several processes find the same calls at the same time."""

HEIR_S: Final = 4.0
"""How long a call that was let go is left to its heir."""

AUDIO_S: Final = 10.0
"""How long a call whose audio is on this machine is left to whoever finds that."""

STILL_S: Final = 2.0
"""A stream that has brought nothing for so long gives way to an heir's."""

FLUSH_S: Final = 8.0
"""How long a call without a stream may take for its last finals when somebody else has one."""

_logger = log.get(__name__)


class Reaper:
    """`run` is its task. `node` is this process."""

    def __init__(
        self,
        outbox: Ownership,
        calls: Calls,
        recovery: Recovery,
        node: str,
        monotonic: Callable[[], float],
    ) -> None:
        self.taking = True
        """Whether calls are taken over; this process may be about to end."""
        self.heirs: Mapping[str, str] = {}
        """Of the calls that this process has, by the latest beat: who waits for each, or nobody ("")."""
        self._outbox = outbox
        self._calls = calls
        self._recovery = recovery
        self._node = node
        self._monotonic = monotonic
        self._hurried = asyncio.Event()
        self._working: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, float] = {}  # calls that somebody else is about to take, and since when
        self._strays: set[str] = set()  # calls that are ours by the last beat, and that we do not have

    async def run(self, *, alone: bool = False) -> None:
        """Beat and look, for ever. `alone`: nobody else uses the outbox, and who did is no more: until all is taken."""
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    if not alone:
                        await self.beat()
                        await self.look()
                    elif not await self.look(0.0, ALL):
                        return
            except (OutboxDown, TimeoutError) as error:
                _logger.warning("beat_failed", error=str(error) or "the outbox does not answer")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._hurried.wait()
            self._hurried.clear()

    def hasten(self, call_sid: str) -> None:
        """Somebody waits for a call: if it is one of ours, beat at once, and learn of the heir."""
        if self._calls.get(call_sid) is not None:
            self._hurried.set()

    async def close(self) -> None:
        """Take no more calls."""
        for task in self._working.values():
            task.cancel()
        await asyncio.gather(*self._working.values(), return_exceptions=True)

    async def beat(self) -> None:
        """Say that this process lives, and learn which calls are its own. Raises `OutboxDown`."""
        before = [call for call in self._calls if call.owned]
        self.heirs = own = await self._outbox.beat(self._node)
        for call in before:
            call_sid = call.about.call_sid
            if call_sid not in own:
                known = await self._outbox.known(call_sid)
                if call.owned:
                    call.lose(erased=known is not None and known.erased)
            elif own[call_sid] and (call.waiting or call.silent_s > STILL_S) and not call.ending:
                self._do(call_sid, call.let_go(FLUSH_S, wanted=True))
        strays = {sid for sid in own if self._calls.get(sid) is None and not self._calls.has_ended(sid)}
        for call_sid in strays & self._strays:
            known = await self._outbox.known(call_sid)
            if known is not None and known.node == self._node:
                self._do(call_sid, self._taken(known, 0.0))
        self._strays = strays

    async def look(self, silent_s: float = SILENT_S, limit: int = AT_ONCE) -> bool:
        """Take calls that nobody is at work on; whether there are any. Raises `OutboxDown`."""
        if not self.taking:
            return False
        found = await self._outbox.orphans(silent_s, limit)
        found = [known for known in found if known.node != self._node]
        now = self._monotonic()
        audible = await self._recovery.to_be_found(found)
        patience = {
            known.call_sid: HEIR_S if known.heir else AUDIO_S if known.call_sid in audible else 0.0
            for known in found
        }
        self._waiting = {
            call_sid: self._waiting.get(call_sid, now) for call_sid, seconds in patience.items() if seconds
        }
        for known in found:
            if now - self._waiting.get(known.call_sid, now) >= patience[known.call_sid]:
                self.take(known, random.uniform(0, SPREAD_S))  # noqa: S311 - not a secret
        return bool(found)

    def take(self, known: Known, wait_s: float = 0.0) -> None:
        """Take a call over from a dead owner, or from none, after a while."""
        if not self._calls.is_expected(known.call_sid):
            self._do(known.call_sid, self._taken(known, wait_s))

    def _do(self, call_sid: str, work: Coroutine[Any, Any, None]) -> None:
        """Do something about a call, unless something is being done already."""
        if call_sid in self._working:
            work.close()
            return
        task = self._working[call_sid] = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._done(call_sid, done))

    def _done(self, call_sid: str, task: asyncio.Task[None]) -> None:
        del self._working[call_sid]
        if not task.cancelled() and (defect := task.exception()) is not None:
            metrics.DEFECTS.inc()
            _logger.error("reaper_failed", exc_info=defect)

    async def _taken(self, known: Known, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if not self.taking or self._calls.get(known.call_sid) is not None:
            return
        try:
            await self._recovery.take(known)
        except Fenced:
            return  # somebody else was faster
        except OutboxDown as error:
            _logger.warning("call_not_taken", call_sid=known.call_sid, error=str(error))
            return
        metrics.CALLS_TAKEN.inc()
        _logger.info("call_taken", call_sid=known.call_sid, silent_s=round(known.silent_s, 1))
