"""The operator's console: a stream for a call in progress, its end, and calls of the bridge's own.

Nothing here is heard on the call, and what fails leaves the call as it was.
"""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeVar

from bridge import log
from bridge.call.call import Call
from bridge.call.calls import Calls
from bridge.call.memo import Memo
from bridge.config import NumberSettings
from bridge.errors import BridgeError
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.ownership import Known, Ownership
from bridge.twilio.dial import Dial
from bridge.twilio.live import Fate, LiveCalls
from bridge.twilio.rest import RestFailed
from bridge.workers.company import DETACH, STREAMED, Others

PAUSES_S: Final = (0.5, 2.0)
"""Before the second and the third try of something that Twilio has no time for."""

ATTACH_S: Final = 40.0
"""How long an operator waits for Twilio in all."""

ARRIVES_S: Final = 5.0
"""How long a new stream may take to reach us before the operator is told that it has not."""

STOPS_S: Final = 3.0
"""How long the last audio of a stream that was stopped may take to reach us."""

LOOK_S: Final = 0.02

ASK_S: Final = 0.25
"""How often other workers are asked whether it came to them."""

OUTBOX_S: Final = 5.0
"""How long the outbox may take to say what it knows of a call."""

SILENT_S: Final = 10.0
"""A bridge that was not heard of for so long has its calls no more."""

ENDED: Final = "The call has been transcribed to its end, and its call.ended was told."

PARTIES: Final = "From", "To", "Direction"
"""What Twilio's forms call them."""

_T = TypeVar("_T")

_logger = log.get(__name__)


class Refused(BridgeError):  # noqa: N818 - says what was done
    """It was not done, for a reason that is not Twilio's API."""

    def __init__(self, why: Literal["unknown", "conflict", "unready"], sentence: str) -> None:
        super().__init__(sentence)
        self.why = why


@dataclass(frozen=True, slots=True)
class Attached:
    """A stream of a call in progress."""

    stream_sid: str
    already: bool
    """It was there before."""
    arrived: bool
    """Its audio reaches this process."""


class Tokens(Protocol):
    """Issues a stream token for the call that a form of Twilio's is about; see `Gate.issue`."""

    def __call__(self, form: Mapping[str, str], now: float, *, again: bool) -> str:
        """`now` is in seconds since 1970; `again`: the call was streamed before."""


class Reserve(Protocol):
    """Keeps a place for the call that a form of Twilio's is about; or the reason why there is none."""

    def __call__(self, form: Mapping[str, str], *, again: bool) -> str:
        """`again`: the call was streamed before, and is not refused."""


class Console:
    """What is done with calls by hand. `unready` says why no stream can be taken now, or nothing.

    `settings` gives those of a call between two parties, by who calls, who is called, and the direction.
    Every method may raise `Refused`, `RestFailed` and `OutboxDown`.
    """

    def __init__(
        self,
        calls: Calls,
        live: LiveCalls,
        outbox: Ownership,
        *,
        account_sid: str,
        tokens: Tokens,
        reserve: Reserve,
        settings: Callable[[str, str, str], NumberSettings],
        unready: Callable[[], str],
        others: Others,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._calls = calls
        self._live = live
        self._outbox = outbox
        self._account_sid = account_sid
        self._tokens = tokens
        self._reserve = reserve
        self._settings = settings
        self._unready = unready
        self._others = others
        self._wall = wall
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def attach(self, call_sid: str) -> Attached:
        """Have a call in progress transcribed from now on. A call that has a stream keeps it."""
        lock = self._locks.setdefault(call_sid, asyncio.Lock())
        try:
            async with asyncio.timeout(ATTACH_S), lock:
                if call := self._streamed(call_sid):
                    return Attached(call.memo.stream_sid, already=True, arrived=True)
                again = await self._before(call_sid)
                if isinstance(again, Attached):
                    return again
                self._check_room(self._unready())
                fate = await _patiently(lambda: self._live.fate(call_sid))
                self._check(fate)
                stream_sid = await _patiently(lambda: self._start(call_sid, fate, again=again))
                arrived = await self._arrives(call_sid)
        except TimeoutError as error:
            raise RestFailed(
                f"Twilio's REST API did not answer within {ATTACH_S:.0f} s.", passing=True
            ) from error
        _logger.info("call_attached", call_sid=call_sid, stream_sid=stream_sid, arrived=arrived)
        return Attached(stream_sid, already=False, arrived=arrived)

    async def detach(self, call_sid: str) -> bool:
        """Transcribe a call no more; it goes on. False if that was so already.

        Nothing takes the call up again: it has its `call.ended`.
        """
        detached = await self.detached_here(call_sid)
        if detached is None:
            others = await self._others.ask(DETACH, call_sid, timeout_s=ATTACH_S + STOPS_S + OUTBOX_S)
            detached = any(others) if others else await self._detached_elsewhere(call_sid)
        return detached

    async def detached_here(self, call_sid: str) -> bool | None:
        """The same for a call of this process; None if it is none."""
        call = self._calls.get(call_sid)
        if call is None or call.ending:
            return False if self._calls.has_ended(call_sid) else None
        call.detach()
        stream_sid = call.memo.stream_sid
        try:
            async with asyncio.timeout(ATTACH_S):
                await _patiently(lambda: self._live.stop_stream(call_sid, stream_sid))
            # The stream's `stop` comes after its last audio.
            await _within(STOPS_S, lambda: call.ending or call.waiting)
        except (RestFailed, TimeoutError) as failed:
            # Twilio ends the stream of a socket that is closed, too, and writes that to its debugger.
            _logger.warning("stream_not_stopped", call_sid=call_sid, error=str(failed))
        finally:
            call.end("detached")
        _logger.info("call_detached", call_sid=call_sid, stream_sid=stream_sid)
        return True

    async def dial(self, dial: Dial) -> str:
        """Place a call that is transcribed from its first second; its id. Tried once: no telephone rings twice."""
        self._check_room(self._unready())
        try:
            call_sid = await self._live.dial(dial)
        except RestFailed as failed:
            if failed.unsure:
                raise RestFailed(
                    f"{failed} The call may have been placed all the same: see Twilio's call log.",
                    unsure=True,
                ) from failed
            raise
        _logger.info("call_dialled", call_sid=call_sid)
        return call_sid

    @staticmethod
    def _check_room(reason: str) -> None:
        if reason:
            raise Refused("unready", f"This bridge takes no new call now: {reason}.")

    async def _arrives(self, call_sid: str) -> bool:
        """Whether a stream of the call comes to this machine in time."""
        for _ in range(round(ARRIVES_S / ASK_S)):
            if await _within(ASK_S, lambda: self._streamed(call_sid) is not None):
                return True
            if any(await self._others.ask(STREAMED, call_sid)):
                return True
        return False

    async def has_stream(self, call_sid: str) -> bool:
        """Whether a stream carries the call here."""
        return self._streamed(call_sid) is not None

    def _streamed(self, call_sid: str) -> Call | None:
        """The call, if a stream carries it."""
        call = self._calls.get(call_sid)
        return None if call is None or call.ending or call.waiting else call

    async def _before(self, call_sid: str) -> Attached | bool:
        """The stream that another bridge has of the call; else whether the call was streamed before."""
        if self._calls.has_ended(call_sid):
            raise Refused("conflict", ENDED)
        if self._calls.get(call_sid) is not None:
            return True
        known = await self._known(call_sid)
        if known is None:
            return False
        if known.ended or known.erased:
            raise Refused("conflict", ENDED)
        memo = Memo.decode(known.meta)
        if known.node and known.silent_s < SILENT_S and memo is not None and memo.stream_sid:
            return Attached(memo.stream_sid, already=True, arrived=False)
        return True

    async def _known(self, call_sid: str) -> Known | None:
        try:
            async with asyncio.timeout(OUTBOX_S):
                return await self._outbox.known(call_sid)
        except TimeoutError as error:
            raise OutboxDown(f"the outbox did not answer within {OUTBOX_S:.0f} s") from error

    def _check(self, fate: Fate) -> None:
        if self._account_sid and fate.account_sid != self._account_sid:
            raise Refused("unknown", "The call belongs to another account than twilio.account_sid.")
        if fate.over:
            raise Refused("conflict", f"The call is over ({fate.status}).")
        if not fate.streamable:
            raise Refused("conflict", f"Nobody has picked up the call yet ({fate.status}).")

    async def _start(self, call_sid: str, fate: Fate, *, again: bool) -> str:
        if call := self._streamed(call_sid):  # the try before this one was not told of its success
            return call.memo.stream_sid
        parties = fate.from_, fate.to, fate.direction
        form = dict(
            zip(("CallSid", "AccountSid", *PARTIES), (call_sid, fate.account_sid, *parties), strict=True)
        )
        self._check_room(self._reserve(form, again=again))
        token = self._tokens(form, self._wall(), again=again)
        return await self._live.start_stream(call_sid, token=token, settings=self._settings(*parties))

    async def _detached_elsewhere(self, call_sid: str) -> bool:
        """False for a call that has ended; a call that this process does not have cannot be detached here."""
        known = await self._known(call_sid)
        if known is None:
            raise Refused("unknown", "No bridge has transcribed this call.")
        if known.ended or known.erased:
            return False
        raise Refused("conflict", "This bridge does not have the call: ask the one that does, with --url.")


async def _patiently(work: Callable[[], Awaitable[_T]]) -> _T:
    """What Twilio answers to `work`, which is tried again when that may help."""
    for pause_s in PAUSES_S:
        try:
            return await work()
        except RestFailed as failed:
            if not failed.passing:
                raise
        await asyncio.sleep(pause_s)
    return await work()


async def _within(seconds: float, so: Callable[[], bool]) -> bool:
    """Whether it is so, or becomes so in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not so():  # noqa: ASYNC110 - there is no event for it, and it is waited for at an operator's pace
                await asyncio.sleep(LOOK_S)
    return so()
