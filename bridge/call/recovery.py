"""Takes over the calls that another process had: from its audio, from what the outbox knows, or as its heir."""

import asyncio
import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final

from bridge import log, metrics
from bridge.call.call import Adopted, Call
from bridge.call.calls import Calls
from bridge.call.journals import Folder, discard
from bridge.call.leg import follower
from bridge.call.memo import About, Memo
from bridge.call.publisher import Taken, persistently, take_over, taken_with
from bridge.call.services import Services
from bridge.config import NumberSettings
from bridge.outbox.lease import Erased, Fenced
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.ownership import Known

SILENT_S: Final = 10.0
"""A node that has said nothing for so long is taken for dead."""

TAKING: Final = 50
"""Calls that are taken over in the outbox at a time."""

TRANSCRIBING: Final = 50
"""Calls at one Whisper endpoint that catch up at a time; a call whose stream comes back does not wait for its turn."""

READY_S: Final = 10.0
"""How long the start waits until all are taken over: milliseconds each, unless the outbox is down."""

LOOK_S: Final = 0.2
"""How often a call is looked at that catches up."""

SEARCH_S: Final = 2.0
"""How often audio is looked for that a process beside this one left."""

AGAIN: Final = 15
"""Every so many searches, audio is tried again that could not be used before."""

ADOPTIONS: Final = 5
"""How often one process tries to go on with the same audio: a defect must not go on for ever."""

KNOWN_S: Final = 2.0
"""How long the outbox may take to say whether a new call is a new one."""

INHERIT_S: Final = 0.25
"""How often an heir asks whether the call is his."""

_logger = log.get(__name__)


class Recovery:
    """Adopts calls, and has them transcribed. `settings` gives those that hold for a call. `run` is its task."""

    def __init__(self, services: Services, calls: Calls, settings: Callable[[About], NumberSettings]) -> None:
        self.taking = True
        """Whether audio of other processes is looked for; this process may be about to end."""
        self.waits: Callable[[str], None] = lambda _: None
        """Is told of each call that this process waits for as an heir: who has it may be beside it."""
        self._services = services
        self._calls = calls
        self._settings = settings
        self._taking = asyncio.Semaphore(TAKING)
        self._opening = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(TRANSCRIBING)
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[str] = set()  # calls of which a folder is being looked at
        self._adopted: Counter[str] = Counter()  # how often each folder was

    async def begin(self) -> None:
        """Take the calls over, and see to them in the background; a stream that comes back finds its call."""
        folders = await asyncio.to_thread(self._services.journals.adopt)
        if not folders:
            return
        taken = self._adopt_all(folders)
        _, late = await asyncio.wait(taken, timeout=READY_S)
        _logger.info("calls_adopted", calls=len(taken) - len(late), waiting=len(late))

    async def run(self) -> None:
        """Look for audio of processes that die beside this one, and for some that can be used at last, for ever."""
        for search in itertools.count(1):
            await asyncio.sleep(SEARCH_S)
            if not self.taking:
                continue
            self._adopt_all(await asyncio.to_thread(self._services.journals.adopt))
            if search % AGAIN == 0:
                self._try_again(await asyncio.to_thread(self._services.journals.own))

    async def search(self) -> None:
        """Look for audio of processes that are no more, and take their calls over."""
        if taken := self._adopt_all(await asyncio.to_thread(self._services.journals.adopt)):
            await asyncio.wait(taken, timeout=READY_S)

    async def to_be_found(self, orphans: Iterable[Known]) -> Collection[str]:
        """Which of these calls have the audio of their last owner on this machine: they are found together with it."""
        owners = {known.call_sid: known.owner for known in orphans if known.owner}
        return await asyncio.to_thread(self._services.journals.hold, owners) if owners else ()

    async def close(self) -> None:
        """Take no more calls, and leave what is not finished to the next process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def take(self, known: Known) -> None:
        """Take a call over of which there is no audio here, from a dead owner or from none.

        Raises `Fenced` if somebody else was faster, and `OutboxDown`.
        """
        folder, outbox = self._services.journals.folder(known.call_sid), self._services.outbox
        node = self._services.node
        lease = await outbox.own_call(known.call_sid, folder.id, b"", node=node, only_from=known.owner)
        memo = Memo.decode(lease.meta)
        if memo is None:  # nobody can tell anything of it
            await outbox.publish(lease, [], {}, ended=True)
            return
        taken = await taken_with(outbox, lease)
        await self._go_on(Adopted(folder, dataclasses.replace(memo, continued=True), taken))

    async def inherit(self, about: About, *, again: bool) -> bool:
        """Take a call over whose stream has come here, as soon as nobody else is at work on it.

        Returns when the call is one of ours, or a new one; False if it has ended. To be bounded by the caller. Only
        one that was streamed `again` waits for an outbox that is down.
        """
        outbox, call_sid = self._services.outbox, about.call_sid
        if self._is_ours(call_sid):
            return True
        try:
            async with asyncio.timeout(None if again else KNOWN_S):
                known = await persistently(lambda: outbox.known(call_sid), call_sid)
        except TimeoutError:
            known = None
        if known is None or known.ended or known.erased:
            return known is None
        folder, told = self._services.journals.folder(call_sid), False
        while not self._is_ours(call_sid):
            try:
                lease = await outbox.inherit(
                    call_sid, folder.id, known.meta, node=self._services.node, silent_s=SILENT_S
                )
            except OutboxDown:
                lease = None
            if lease is not None:
                break
            if not told:
                told = True
                self.waits(call_sid)
            await asyncio.sleep(INHERIT_S)
        else:
            return True
        if lease.ended:
            return False
        taken = await persistently(lambda: taken_with(outbox, lease), call_sid)
        memo = Memo.decode(lease.meta) or Memo.of(about, self._settings(about))
        await self._go_on(Adopted(folder, dataclasses.replace(memo, continued=True), taken))
        return True

    def _is_free(self, call_sid: str) -> bool:
        return self._calls.get(call_sid) is None and not self._calls.is_expected(call_sid)

    def _is_ours(self, call_sid: str) -> bool:
        call = self._calls.get(call_sid)
        return call is not None and not call.leaving

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

    def _adopt_all(self, folders: Iterable[Folder]) -> list[asyncio.Task[None]]:
        """Adopt calls; those that are live here, or are being adopted, have this audio looked at later."""
        groups = itertools.groupby(sorted(folders, key=_call_sid), key=_call_sid)
        found = {call_sid: list(group) for call_sid, group in groups if self._is_free(call_sid)}
        self._calls.expect(found)
        return [self._spawn(self._adopt(*group)) for group in found.items()]

    def _try_again(self, folders: Iterable[Folder]) -> None:
        """Look once more at audio that belongs to no call here: of each call at one folder at a time."""
        last = sorted(folders, key=lambda folder: -self._adopted[folder.id])  # the one least tried
        for call_sid, folder in {folder.call_sid: folder for folder in last}.items():
            if call_sid not in self._busy and self._is_free(call_sid):
                self._spawn(self._take(folder))

    async def _adopt(self, call_sid: str, folders: list[Folder]) -> None:
        """Adopt one call. It has one folder; several only if several processes had it, and then one counts."""
        try:
            async with self._taking:
                for folder in folders:
                    await self._take(folder)
        finally:
            self._calls.arrived(call_sid)

    async def _take(self, folder: Folder) -> None:
        self._busy.add(folder.call_sid)
        try:
            memo = Memo.decode(await asyncio.to_thread(folder.read))
            if self._adopted[folder.id] < ADOPTIONS:
                await self._take_with(folder, memo)
        except OSError as error:  # it may be had later
            _logger.error("memo_unopened", call_sid=folder.call_sid, error=error.strerror or str(error))
        except Erased:
            await self._discard(folder, "erased")
        except Fenced:
            return  # somebody else was faster
        finally:
            self._busy.discard(folder.call_sid)

    async def _take_with(self, folder: Folder, memo: Memo | None) -> None:
        outbox, node = self._services.outbox, self._services.node
        meta = memo.encode() if memo else b""
        try:
            taken = await take_over(outbox, folder.call_sid, folder.id, meta, node=node, only_from=folder.id)
        except Fenced as fenced:
            if isinstance(fenced, Erased):
                raise
            late = await self._late(folder)
            if late is None:
                return
            taken = late
        memo = memo or Memo.decode(taken.lease.meta)
        if memo is None:
            await persistently(lambda: outbox.publish(taken.lease, [], {}, ended=True), folder.call_sid)
            await self._discard(folder, "nothing is known of the call but its audio")
            return
        self._adopted[folder.id] += 1
        await self._go_on(Adopted(folder, memo, taken))

    async def _late(self, folder: Folder) -> Taken | None:
        """The right to tell what audio says that another process went on without; None before the call's end."""
        outbox, call_sid = self._services.outbox, folder.call_sid
        known = await persistently(lambda: outbox.known(call_sid), call_sid)
        if known is None:
            await self._discard(folder, "the call is past its time")
            return None
        if known.erased:
            raise Erased(f"{call_sid} was erased")
        if not known.ended or (known.owner and known.silent_s < SILENT_S):
            _logger.info("journal_kept", call_sid=call_sid, reason="another process has the call")
            return None
        node = self._services.node
        taken = await take_over(outbox, call_sid, folder.id, b"", node=node, only_from=known.owner)
        for track in folder.tracks():
            begin = await asyncio.to_thread(folder.begin, track)
            until = follower(taken.lease.watermarks, track, begin)
            if until is not None:
                await asyncio.to_thread(folder.cut, track, until)
        return taken

    async def _go_on(self, adopted: Adopted) -> None:
        memo = adopted.memo
        settings = self._settings(memo.about)
        webhook = settings.webhook.model_copy(update={"url": memo.endpoint})
        twilio = settings.twilio.model_copy(update={"mode": memo.mode})
        settings = dataclasses.replace(settings, webhook=webhook, twilio=twilio)
        async with self._opening:  # one in a turn of the loop: files are opened, and live calls go on
            call = self._calls.adopt(adopted, settings)
            await asyncio.sleep(0)
        self._spawn(self._catch_up(call, self._turns[settings.whisper.endpoint_url]))

    async def _discard(self, folder: Folder, why: str) -> None:
        _logger.warning("journal_discarded", call_sid=folder.call_sid, reason=why)
        await discard(folder)

    async def _catch_up(self, call: Call, turn: asyncio.Semaphore) -> None:
        """Have what is left transcribed, when it is the call's turn."""
        async with turn:
            call.transcribe()
            while call.behind_s:  # noqa: ASYNC110 - nobody tells when a session has sent all
                await asyncio.sleep(LOOK_S)


def _call_sid(folder: Folder) -> str:
    return folder.call_sid
