"""How a call leaves this process: with its last finals and its `call.ended`, or for another process to go on with."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

from bridge import log
from bridge.audio import mulaw
from bridge.call.clock import milliseconds
from bridge.call.journals import Folder, discard
from bridge.call.leg import Leg
from bridge.call.legs import Legs
from bridge.call.minutes import Minutes
from bridge.errors import BridgeError

FINISH_S: Final = 120.0
"""How long `call.ended` waits for the last finals; what is found later is a `transcript.late`."""

TURN_S: Final = 3600.0
"""How long before that an adopted call waits for its turn to be transcribed; Whisper may be away for ever."""

LET_GO_S: Final = 3.0
"""How long the outbox may take to let a call go; its next owner finds it silent otherwise."""

OVERLAP: Final = mulaw.SAMPLE_RATE // 10
"""Samples of silence that two streams share where the one takes over from the other: their clocks differ a little."""


class Ending:
    """Sees the legs of one call to their end. One of `finish` and `let_go` is called, once."""

    def __init__(self, legs: Legs, minutes: Minutes, folder: Folder, logger: log.Logger) -> None:
        self.recovering = False
        """What Whisper has not finalised may as well be left to the next process: no stop waits for it."""
        self._legs = legs
        self._minutes = minutes
        self._folder = folder
        self._logger = logger

    async def finish(self, reason: str) -> None:
        """The call is over: have the rest transcribed, tell its end, and remove its audio."""
        duration_ms = milliseconds(self._legs.received_until)
        heard = self._heard()
        running = [leg.task for leg in heard]
        if running and not self._minutes.over:
            self.recovering = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await self._legs.may_transcribe.wait()
            self.recovering = False
            await asyncio.wait(running, timeout=FINISH_S)
        await self._minutes.ended(reason=reason, duration_ms=duration_ms, complete=self._is_complete(heard))
        if unfinished := [task for task in running if not task.done()]:
            self.recovering = True
            await asyncio.wait(unfinished)
            self._logger.info("call_recovered", finals=len(self._minutes.lines))
        for leg in self._legs:
            leg.track.journal.close(delete=leg not in heard or leg.succeeded)
        if self._legs.unopened:
            self._logger.error("journal_unopened", reason="it is tried again")
        elif all(leg.succeeded for leg in heard):
            await discard(self._folder)
        try:
            async with asyncio.timeout(LET_GO_S):
                await self._minutes.release()
        except (BridgeError, TimeoutError) as error:  # it may have to wait until we are gone
            self._logger.warning("call_not_let_go", error=str(error) or "the outbox does not answer")

    async def let_go(self, patience_s: float, *, wanted: bool, beside: bool) -> bool:
        """The call goes on in another process: have what was heard transcribed within `patience_s`, and give it up.

        If somebody waits for it (`wanted`) also when something is left, which is told as late then. Else such a call
        stays this process's, with its audio on the disk, for whoever finds it. `beside`: the other's stream has come
        before ours is over. Returns whether nothing is left.
        """
        until = self._legs.kept_until - (self._overlap() if beside else 0)
        settled: dict[str, int] = {leg.track.name: until for leg in self._legs}
        heard = self._heard()
        if running := [leg.task for leg in heard]:
            await asyncio.wait(running, timeout=patience_s)
        complete = self._is_complete(heard)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if complete or wanted:
            try:
                async with asyncio.timeout(LET_GO_S):
                    await self._minutes.let_go(settled if complete else {})
            except (BridgeError, TimeoutError) as error:
                complete = False
                self._logger.warning("call_not_let_go", error=str(error) or "the outbox does not answer")
        for leg in self._legs:
            leg.track.journal.close(delete=complete)
        if complete:
            await discard(self._folder)
        return complete

    def _heard(self) -> list[Leg]:
        """Say to the sessions that this was all; returns the legs that ever heard anything."""
        heard = [leg for leg in self._legs if leg.track.journal.end]
        for leg in self._legs:
            leg.track.count()
            if leg in heard:
                leg.session.finish()
            else:
                leg.task.cancel()
        return heard

    def _is_complete(self, heard: Iterable[Leg]) -> bool:
        return not self._legs.unopened and all(leg.succeeded and not leg.session.gave_up for leg in heard)

    def _overlap(self) -> int:
        """How much of the silence at the end another stream may have too."""
        quiet = min((leg.track.received_until - leg.track.loud_until for leg in self._legs), default=0)
        return min(OVERLAP, quiet // 2)
