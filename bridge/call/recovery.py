"""Goes on with the calls that an earlier process left: transcribes the rest, and finds out what became of them."""

import asyncio
import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from bridge import log, metrics
from bridge.call.call import Adopted, Call
from bridge.call.calls import Calls
from bridge.call.journals import Folder, discard
from bridge.call.memo import About, Memo
from bridge.call.publisher import take_over
from bridge.call.services import Services
from bridge.config import NumberSettings
from bridge.outbox.outbox import Erased, Fenced
from bridge.twilio.rest import Fate, RestFailed

TAKING: Final = 50
"""Calls that are taken over in the outbox at a time."""

TRANSCRIBING: Final = 50
"""Calls at one Whisper endpoint that catch up at a time; a call whose stream comes back does not wait for its turn."""

READY_S: Final = 10.0
"""How long the start waits until all are taken over: milliseconds each, unless the outbox is down."""

ALONE_S: Final = 60.0
"""How long a call is kept open without a stream, and without a word from Twilio."""

ASK_FIRST_S: Final = 2.0
ASK_LAST_S: Final = 30.0
"""Between two questions about a call that goes on."""

LOOK_S: Final = 0.2
"""How often a call is looked at that catches up."""

LOST: Final = "bridge_lost"
"""The `reason` of a call that ended while no process had it, or of which nothing can be learned."""

_logger = log.get(__name__)


class Twilio(Protocol):
    """Who knows what became of a call."""

    async def fate(self, call_sid: str) -> Fate:
        """Raises `RestFailed`."""


class Recovery:
    """Adopts calls, and sees each through. `settings` gives those that hold for a call."""

    def __init__(
        self, services: Services, calls: Calls, twilio: Twilio, settings: Callable[[About], NumberSettings]
    ) -> None:
        self._services = services
        self._calls = calls
        self._twilio = twilio
        self._settings = settings
        self._taking = asyncio.Semaphore(TAKING)
        self._opening = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(TRANSCRIBING)
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self) -> None:
        """Take the calls over, and see to them in the background; a stream that comes back finds its call."""
        folders = sorted(await asyncio.to_thread(self._services.journals.adopt), key=_call_sid)
        if not folders:
            return
        groups = {call_sid: list(group) for call_sid, group in itertools.groupby(folders, key=_call_sid)}
        self._calls.expect(groups)
        taken = [self._spawn(self._adopt(*group)) for group in groups.items()]
        _, late = await asyncio.wait(taken, timeout=READY_S)
        _logger.info("calls_adopted", calls=len(groups) - len(late), waiting=len(late))

    async def close(self) -> None:
        """Leave what is not finished to the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (defect := task.exception()) is not None:
            metrics.DEFECTS.inc()
            _logger.error("recovery_failed", exc_info=defect)

    async def _adopt(self, call_sid: str, folders: list[Folder]) -> None:
        """Adopt one call. It has one folder; several only if several processes had it, and then one counts."""
        try:
            async with self._taking:
                for folder in folders:
                    await self._take(folder)
        finally:
            self._calls.arrived(call_sid)

    async def _take(self, folder: Folder) -> None:
        try:
            memo = Memo.decode(await asyncio.to_thread(folder.read))
        except OSError as error:
            _logger.error("memo_unopened", call_sid=folder.call_sid, error=error.strerror or str(error))
            return  # the next process may be able to
        outbox = self._services.outbox
        try:
            taken = await take_over(
                outbox, folder.call_sid, folder.id, memo.encode() if memo else b"", only_from=folder.id
            )
            memo = memo or Memo.decode(taken.lease.meta)
            if memo is None:
                await outbox.publish(taken.lease, [], {}, ended=True)
        except Fenced as fenced:
            why = "erased" if isinstance(fenced, Erased) else "another process has the call"
            await self._discard(folder, why)
            return
        if memo is None:
            await self._discard(folder, "nothing is known of the call but its audio")
            return
        settings = self._settings(memo.about)
        webhook = settings.webhook.model_copy(update={"url": memo.endpoint})
        settings = dataclasses.replace(settings, webhook=webhook)
        async with self._opening:  # one in a turn of the loop: files are opened, and live calls go on
            call = self._calls.adopt(Adopted(folder, memo, taken), settings)
            await asyncio.sleep(0)
        self._spawn(self._catch_up(call, self._turns[settings.whisper.endpoint_url]))
        self._spawn(self._see_through(call))

    async def _discard(self, folder: Folder, why: str) -> None:
        _logger.warning("journal_discarded", call_sid=folder.call_sid, reason=why)
        await discard(folder)

    async def _catch_up(self, call: Call, turn: asyncio.Semaphore) -> None:
        """Have what is left transcribed, when it is the call's turn."""
        async with turn:
            call.transcribe()
            while call.behind:  # noqa: ASYNC110 - nobody tells when a session has sent all
                await asyncio.sleep(LOOK_S)

    async def _see_through(self, call: Call) -> None:
        """Keep a call open until a stream carries it again, or until it is known to be over."""
        logger = _logger.bind(call_sid=call.about.call_sid)
        if call.memo.reason:
            call.give_up(call.memo.reason, call.memo.ended_at)
        pause_s, heard_at, said = ASK_FIRST_S, self._services.monotonic(), ""
        while call.waiting:
            try:
                fate = await self._twilio.fate(call.about.call_sid)
            except RestFailed as error:
                if said != (said := str(error)):
                    logger.warning("call_fate_unknown", error=said)
                if self._services.monotonic() - heard_at >= ALONE_S:
                    call.give_up(LOST)
            else:
                heard_at = self._services.monotonic()
                if fate.over:
                    call.give_up(LOST, fate.ended_at)
                # Else it goes on without us: a stream could be started from here.
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, ASK_LAST_S)


def _call_sid(folder: Folder) -> str:
    return folder.call_sid
