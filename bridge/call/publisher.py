"""The one writer of a call's events: numbers them, and stores them in the order in which they were said."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from bridge import events, log, metrics
from bridge.outbox.lease import CallLease, Erased
from bridge.outbox.outbox import Line, Outbox, OutboxDown, Outgoing

QUEUE: Final = 1000
"""Events of one call that may wait for the outbox. When full, finals wait with Whisper; gaps and digits are dropped."""

RETRY_FIRST_S: Final = 0.1
RETRY_LONGEST_S: Final = 2.0

_T = TypeVar("_T")

_logger = log.get(__name__)


@dataclass(slots=True)
class _Pending:
    event: type[Any]
    data: type[Any]
    fields: Mapping[str, Any] | None
    """None: nothing is told, only the watermarks move."""
    watermarks: Mapping[str, int]
    line: Line | None
    at: float
    stored: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Taken:
    """A call that this process may publish for, and what was said in it before."""

    lease: CallLease
    lines: list[Line]


async def take_over(
    outbox: Outbox, call_sid: str, owner: str, meta: bytes, *, node: str, only_from: str | None = None
) -> Taken:
    """Take a call over for `node`, as soon as the outbox can. Raises `Fenced` and `Erased`."""

    async def taken() -> Taken:
        lease = await outbox.own_call(call_sid, owner, meta, node=node, only_from=only_from)
        return await taken_with(outbox, lease)

    return await persistently(taken, call_sid)


async def taken_with(outbox: Outbox, lease: CallLease) -> Taken:
    """What was said in a call that was taken over. Raises `Erased` and `OutboxDown`."""
    if lease.erased:
        raise Erased(f"{lease.call_sid} was erased")
    return Taken(lease, await outbox.transcript(lease.call_sid) if lease.epoch > 1 else [])


class Publisher:
    """Stores events of one call for one endpoint. `run` is its task, owned by the call."""

    def __init__(
        self,
        outbox: Outbox,
        publish: Callable[..., Awaitable[object]],
        *,
        call_sid: str,
        endpoint: str,
        subscribed: frozenset[str],
        take_over: Callable[[], Awaitable[Taken]],
        about: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._store = publish
        self._call_sid = call_sid
        self._endpoint = endpoint
        self._subscribed = subscribed
        self._take_over = take_over
        self._about = about  # the fields that every event of the call has
        self._clock = clock
        self._queue: asyncio.Queue[_Pending | bytes] = asyncio.Queue(QUEUE)
        self._sequence = 0
        self._lines = 0

    def post(
        self,
        event: type[Any],
        data: type[Any],
        *,
        watermarks: Mapping[str, int] | None = None,
        **fields: Any,
    ) -> asyncio.Future[None]:
        """Queue an event without waiting for it; what it returns is done when that is durable."""
        pending = _Pending(event, data, fields, watermarks or {}, None, self._clock())
        try:
            self._queue.put_nowait(pending)
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.inc()
            _logger.error("event_dropped", call_sid=self._call_sid, type=_type(event), waiting=QUEUE)
        return pending.stored

    async def publish(
        self,
        event: type[Any],
        data: type[Any],
        *,
        watermarks: Mapping[str, int] | None = None,
        line: Line | None = None,
        **fields: Any,
    ) -> None:
        """Store an event; returns when it is durable, together with the watermarks it moves and what was said.

        The line's number is given here.
        """
        await self._put(_Pending(event, data, fields, watermarks or {}, line, self._clock()))

    def note(self, meta: bytes) -> None:
        """Queue what is said of the call for whoever takes it over."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(meta)

    def move(self, watermarks: Mapping[str, int]) -> None:
        """Queue a move of watermarks over audio of which nothing is told; without effect when the queue is full."""
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(self._silent(watermarks))

    async def settle(self, watermarks: Mapping[str, int]) -> None:
        """Move watermarks over audio of which nothing is told; returns when that is durable."""
        await self._put(self._silent(watermarks))

    async def run(self) -> None:
        """Take the call over, then store what is queued, for ever. Raises `Fenced` and `Erased`."""
        taken = await self._take_over()
        self._sequence = taken.lease.next_sequence
        self._lines = taken.lines[-1].number if taken.lines else 0
        while True:
            pending = await self._queue.get()
            if isinstance(pending, bytes):
                noted = functools.partial(self._outbox.note, taken.lease, pending)
                await persistently(noted, self._call_sid)
                continue
            if pending.event is events.CallStarted and self._sequence > 1:
                continue  # an earlier process has told
            outgoing = self._number(pending)
            lines = [] if pending.line is None else [replace(pending.line, number=self._lines + 1)]
            ended = pending.event is events.CallEnded
            await persistently(
                functools.partial(
                    self._store, taken.lease, outgoing, pending.watermarks, lines=lines, ended=ended
                ),
                self._call_sid,
            )
            self._sequence += len(outgoing)
            self._lines += len(lines)
            if not pending.stored.done():
                pending.stored.set_result(None)

    async def _put(self, pending: _Pending) -> None:
        await self._queue.put(pending)
        await pending.stored

    def _silent(self, watermarks: Mapping[str, int]) -> _Pending:
        final = events.TranscriptFinal, events.TranscriptFinalData
        return _Pending(*final, None, watermarks, None, self._clock())

    def _number(self, pending: _Pending) -> list[Outgoing]:
        kind = _type(pending.event)
        if kind not in self._subscribed or pending.fields is None:
            return []
        data = pending.data(**self._about(), **pending.fields, sequence=self._sequence)
        body = events.encode(pending.event(timestamp=events.timestamp(pending.at), data=data))
        identity = events.event_id(self._call_sid, self._endpoint, self._sequence, kind)
        return [Outgoing(self._endpoint, self._sequence, identity, kind, body)]


async def persistently(operation: Callable[[], Awaitable[_T]], call_sid: str) -> _T:
    """Ask the outbox until it answers: while it is down, what was heard waits here and in the journal."""
    delay = 0.0
    while True:
        try:
            return await operation()
        except OutboxDown as error:
            if not delay:
                _logger.error("outbox_down", call_sid=call_sid, error=str(error))
            delay = min(max(2 * delay, RETRY_FIRST_S), RETRY_LONGEST_S)
            await asyncio.sleep(delay)


def _type(event: type[Any]) -> str:
    """The event's name on the wire."""
    return str(event.__struct_config__.tag)
