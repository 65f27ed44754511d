"""The one writer of a call's events: numbers them, and stores them in the order in which they were said."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from bridge import events, log, metrics
from bridge.outbox.outbox import Fenced, Outbox, OutboxDown, Outgoing

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
    fields: Mapping[str, Any]
    watermarks: Mapping[str, int]
    at: float
    stored: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Publisher:
    """Stores events of one call for one endpoint. `run` is its task, owned by the call."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        call_sid: str,
        owner: str,
        endpoint: str,
        subscribed: frozenset[str],
        about: Callable[[], Mapping[str, Any]],
        clock: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._call_sid = call_sid
        self._owner = owner
        self._endpoint = endpoint
        self._subscribed = subscribed
        self._about = about  # the fields that every event of the call has
        self._clock = clock
        self._queue: asyncio.Queue[_Pending] = asyncio.Queue(QUEUE)
        self._sequence = 0

    def post(self, event: type[Any], data: type[Any], **fields: Any) -> None:
        """Queue an event without waiting for it."""
        try:
            self._queue.put_nowait(_Pending(event, data, fields, {}, self._clock()))
        except asyncio.QueueFull:
            metrics.EVENTS_DROPPED.inc()
            _logger.error("event_dropped", call_sid=self._call_sid, type=_type(event), waiting=QUEUE)

    async def publish(
        self, event: type[Any], data: type[Any], *, watermarks: Mapping[str, int] | None = None, **fields: Any
    ) -> None:
        """Store an event; returns when it is durable, together with the watermarks it moves."""
        pending = _Pending(event, data, fields, watermarks or {}, self._clock())
        await self._queue.put(pending)
        await pending.stored

    async def run(self) -> None:
        """Take the call over in the outbox, then store what is queued, for ever. Raises `Fenced`, also for a call that is over."""
        lease = await self._retrying(lambda: self._outbox.own_call(self._call_sid, self._owner, b""))
        if lease.ended:
            raise Fenced(f"{self._call_sid} has its call.ended already")
        self._sequence = lease.next_sequence
        while True:
            pending = await self._queue.get()
            if pending.event is events.CallStarted and self._sequence > 1:
                continue  # an earlier process has told
            outgoing = self._number(pending)
            ended = pending.event is events.CallEnded
            await self._retrying(
                functools.partial(self._outbox.publish, lease, outgoing, pending.watermarks, ended=ended)
            )
            self._sequence += len(outgoing)
            if not pending.stored.done():
                pending.stored.set_result(None)

    def _number(self, pending: _Pending) -> list[Outgoing]:
        kind = _type(pending.event)
        if kind not in self._subscribed:
            return []
        data = pending.data(**self._about(), **pending.fields, sequence=self._sequence)
        body = events.encode(pending.event(timestamp=events.timestamp(pending.at), data=data))
        identity = events.event_id(self._call_sid, self._endpoint, self._sequence, kind)
        return [Outgoing(self._endpoint, self._sequence, identity, kind, body)]

    async def _retrying(self, operation: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the outbox until it answers: while it is down, what was heard waits here and in the journal."""
        delay = 0.0
        while True:
            try:
                return await operation()
            except OutboxDown as error:
                if not delay:
                    _logger.error("outbox_down", call_sid=self._call_sid, error=str(error))
                delay = min(max(2 * delay, RETRY_FIRST_S), RETRY_LONGEST_S)
                await asyncio.sleep(delay)


def _type(event: type[Any]) -> str:
    """The event's name on the wire."""
    return str(event.__struct_config__.tag)
