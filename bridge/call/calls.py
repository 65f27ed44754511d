"""The live calls of this process."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Final
from weakref import WeakKeyDictionary

from bridge import events, log, metrics
from bridge.call.call import Adopted, Call
from bridge.call.lifeline import Lifelines
from bridge.call.memo import About
from bridge.call.services import Services
from bridge.config import NumberSettings
from bridge.errors import BridgeError

LOOK_AFTER_S: Final = 0.2
"""How often calls are looked after that nothing arrives on."""

REMEMBERED: Final = 10_000
"""Ended calls whose ids are remembered, so that none of them starts again."""

_logger = log.get(__name__)


class Calls:
    """Starts calls, finds them by id, and ends them. `run` is its task."""

    def __init__(self, services: Services, lifelines: Lifelines) -> None:
        self._services = services
        self._lifelines = lifelines
        self._calls: dict[str, Call] = {}
        self._streamed_at: WeakKeyDictionary[Call, float] = (
            WeakKeyDictionary()
        )  # when its latest stream started
        self._ended: dict[str, None] = {}  # a set that forgets its oldest
        self._expected: dict[str, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    def get(self, call_sid: str) -> Call | None:
        """The live call of that id."""
        return self._calls.get(call_sid)

    def has_ended(self, call_sid: str) -> bool:
        """Whether the call has been transcribed to its end: its `call.ended` is, or will be, its last event."""
        call = self._calls.get(call_sid)
        return call.over if call else call_sid in self._ended

    def start(
        self,
        about: About,
        settings: NumberSettings,
        stream_sid: str,
        tracks: list[events.Track],
        *,
        hang_up: Callable[[int], None],
        at: float,
    ) -> Call:
        """The call that a stream belongs to which started `at`: a new one, or the live one, which it then takes over."""
        call = self._calls.get(about.call_sid)
        if call is None:
            call = Call(about, settings, self._services, self._lifelines)
            self._keep(call)
        call.stream(stream_sid, tracks, hang_up=hang_up, at=at)
        self._streamed_at[call] = at
        return call

    def overtaken(self, call_sid: str, at: float) -> bool:
        """Whether the call has a stream already that started later than `at`: this one was let in too late."""
        call = self._calls.get(call_sid)
        return call is not None and self._streamed_at.get(call, at) > at

    def adopt(self, adopted: Adopted, settings: NumberSettings) -> Call:
        """A call that an earlier process had; a stream may come and go on with it."""
        call = Call(adopted.memo.about, settings, self._services, self._lifelines, adopted)
        self._keep(call)
        return call

    def expect(self, call_sids: Collection[str]) -> None:
        """Say that these calls may be adopted: nobody may start them meanwhile."""
        self._expected |= {call_sid: asyncio.Event() for call_sid in call_sids}

    def arrived(self, call_sid: str) -> None:
        """Say that an expected call is adopted, or will not be."""
        self._expected.pop(call_sid).set()

    def is_expected(self, call_sid: str) -> bool:
        """Whether the call may be adopted soon."""
        return call_sid in self._expected

    async def expected(self, call_sid: str) -> None:
        """Wait until it is known whether the call is an adopted one."""
        if (event := self._expected.get(call_sid)) is not None:
            await event.wait()

    async def erase(self, call_sid: str) -> bool:
        """Transcribe the call no more, and remove its audio from this machine; whether there was any.

        Raises `BridgeError`. The telephone call itself goes on.
        """
        if call := self._calls.get(call_sid):
            await call.abandon()
        journals = self._services.journals  # in its thread: what was begun with these files is done before
        return await asyncio.get_running_loop().run_in_executor(journals.files, journals.erase, call_sid)

    async def run(self) -> None:
        """Look after idle calls, for ever."""
        looked_at = self._services.monotonic()
        while True:
            await asyncio.sleep(LOOK_AFTER_S)
            now = self._services.monotonic()
            stood_still, looked_at = now - looked_at > 2 * LOOK_AFTER_S, now
            if stood_still:  # what came meanwhile is not read yet: no call is idle for that
                continue
            for call in self:
                call.idle(now)

    async def drain(self, deadline_s: float, hurry: asyncio.Event) -> None:
        """Wait until all calls are over, the deadline has come, or `hurry` is set.

        A call without a stream is not waited for: it goes on with another process.
        """
        await self._wait(deadline_s, hurry)

    async def finish(self, timeout_s: float, hurry: asyncio.Event, hurry_s: float) -> None:
        """Wait for calls that are ending, `hurry_s` from when `hurry` is set; then abandon them."""
        await self._wait(timeout_s, hurry)
        await self._wait(hurry_s if hurry.is_set() else 0, asyncio.Event())
        await self.abandon()

    async def abandon(self) -> None:
        """End every call now; audio that is not finalised stays on disk."""
        if self._calls:
            _logger.warning("calls_abandoned", calls=len(self._calls))
        while self._calls:  # one may have been taken over meanwhile
            await asyncio.gather(*(call.abandon() for call in self))
            await asyncio.sleep(0)

    async def _wait(self, timeout_s: float, hurry: asyncio.Event) -> None:
        """Until every call has its `call.ended`, `hurry` is set, or the time is up."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                # Not an event: there are two conditions, of which one is in every call.
                while any(not (call.recovering or call.waiting) for call in self) and not hurry.is_set():  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_AFTER_S / 4)

    def _keep(self, call: Call) -> None:
        if older := self._calls.get(call.about.call_sid):
            older.lose()  # the new one has a newer lease
        self._calls[call.about.call_sid] = call
        metrics.CALLS_LIVE.inc()
        self._services.spawn(self._forget_when_done(call))

    async def _forget_when_done(self, call: Call) -> None:
        await call.done.wait()
        call_sid = call.about.call_sid
        if self._calls.get(call_sid) is call:  # else it has come back meanwhile
            del self._calls[call_sid]
        metrics.CALLS_LIVE.dec()
        if call.over:
            self._ended[call_sid] = None
        if len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        if call.erased:
            try:
                await self.erase(call_sid)
            except BridgeError as error:
                _logger.error("call_not_erased", call_sid=call_sid, error=str(error))
