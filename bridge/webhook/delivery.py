"""The pump: takes due lanes from the outbox, as many as their endpoints have room for, and lets them be worked off.

An event is sent when every earlier one of its lane was accepted or buried. A lane whose event fails
goes back to the outbox until its next attempt is due, and holds up nothing but itself.
"""

import asyncio
import contextlib
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from bridge import log, metrics
from bridge.outbox.lease import CallLease, LaneLease
from bridge.outbox.outbox import Line, Outbox, OutboxDown, Outgoing, Stored, lane_name
from bridge.webhook.breaker import UNPROVEN, Breaker
from bridge.webhook.lane import LEASE_S, Lane, Means
from bridge.webhook.sender import Secrets, Sender
from bridge.webhook.target import Targets

IN_FLIGHT = 500
PER_ENDPOINT = 100
CLAIM = 64
"""Lanes to take in one go. A few at a time, as each look shares what is free anew among the endpoints."""

LEAST_S = 0.05
"""The shortest sleep while a lane is due that could not be claimed: somebody else is about to."""

DOWN_S = 1.0
"""Between looks at an outbox that is down."""

MEASURE_S = 5.0
"""The figures of the outbox are no older than this, and the time that it takes to count a backlog."""

_Task = asyncio.Task[None]
_Store = Callable[..., Awaitable[list[LaneLease]]]

_log = log.get(__name__)


class Delivery:
    """Delivers what the outbox holds. An async context manager, or `start` and `close`.

    `clock` gives seconds since 1970, `jitter` 0 to 1. At most `in_flight` POSTs run at a time,
    `per_endpoint` to one endpoint, one per lane. If this process dies, a shared outbox gives its lanes
    to another one after `lease_s`.
    """

    def __init__(
        self,
        outbox: Outbox,
        secrets: Secrets,
        targets: Targets,
        *,
        owner: str = "bridge",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        in_flight: int = IN_FLIGHT,
        per_endpoint: int = PER_ENDPOINT,
        lease_s: float = LEASE_S,
    ) -> None:
        self._outbox = outbox
        self._means = Means(outbox, Sender(secrets, targets, clock=clock), clock, monotonic, jitter, lease_s)
        self._owner = owner
        self._in_flight = in_flight
        self._per_endpoint = per_endpoint
        self._breakers: dict[str, Breaker] = {}
        # Lanes in work, and those of which an event is being stored in the hope of a lease.
        self._lanes: set[_Task] = set()
        # Lane -> tasks that have it: mostly one, but a lease that ran out is no end of its task.
        self._holders: Counter[str] = Counter()
        self._pump: asyncio.Task[None] | None = None
        self._measuring: asyncio.Task[None] | None = None
        self._measured = -math.inf
        self._down = False
        # So few places are left that due lanes may wait for one of any endpoint.
        self._crowded = False
        # Due lanes of these may wait for another one of theirs to end.
        self._full: frozenset[str] = frozenset()
        # The pump has looked, and no lane of another endpoint waits.
        self._at_rest = False

    async def start(self) -> None:
        """Begin to deliver from an open outbox."""
        await self._means.sender.start()
        self._pump = asyncio.create_task(self._run(), name="webhook-pump")

    async def close(self, grace_s: float = 1.0) -> None:
        """Take no more lanes, give POSTs that are under way `grace_s`, hand every lane back."""
        self._means.closing.set()
        self._outbox.wake.set()
        if self._pump is not None:
            await self._pump
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.gather(self._measuring, return_exceptions=True)
        if tasks := self._lanes.copy():
            await asyncio.wait(tasks, timeout=grace_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._means.sender.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def publish(
        self,
        lease: CallLease,
        events: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        lines: Sequence[Line] = (),
        ended: bool = False,
    ) -> None:
        """As the outbox's `publish`; and where nothing else is to be sent before it, the event is sent at once.

        Its lane is leased with the commit, so it waits for one answer of the outbox, not for three.
        """
        store = partial(self._outbox.publish, lease, events, watermarks, lines=lines, ended=ended)
        now = self._means.monotonic()
        if len(events) != 1 or not self._keep_place(lease.call_sid, events[0].endpoint, now):
            await store()
            return
        event, stored = events[0], asyncio.get_running_loop().create_future()
        work = self._store(store, event, now, stored)
        # A task of ours, as somebody has to work on the lane also when the caller gives up.
        task = self._own(work, lane_name(event.endpoint, lease.call_sid), event.endpoint)
        await asyncio.wait([task, stored], return_when=asyncio.FIRST_COMPLETED)
        if stored.done():
            return
        if task.cancelled():
            raise OutboxDown("The delivery was closed before the outbox had answered.")
        task.result()

    async def _store(self, store: _Store, event: Outgoing, now: float, stored: asyncio.Future[None]) -> None:
        """Store an event, say so, and work on the lane that was leased with it, if one was."""
        at = self._means.clock()
        leases = await store(deliverer=self._owner, lease_s=self._means.lease_s)
        stored.set_result(None)
        for given in leases:
            head = Stored(given.lane, given.head, event.sequence, event.event_id, event.type, event.body, at)
            await self._lane(given, now, head).work()

    async def measure(self) -> None:
        """Bring the outbox's gauges up to date: call it before `/metrics` is rendered.

        They stay as they are for `MEASURE_S`, while others wait for the count, and when the outbox is down.
        """
        metrics.BREAKERS_OPEN.set(sum(breaker.is_open for breaker in self._breakers.values()))
        if self._measuring is None and self._means.monotonic() - self._measured >= MEASURE_S:
            self._measuring = asyncio.create_task(self._count())
            await asyncio.shield(self._measuring)

    async def _count(self) -> None:
        try:
            stats = await self._outbox.stats()
        except OutboxDown:
            return
        finally:
            self._measuring, self._measured = None, self._means.monotonic()
        metrics.OUTBOX_PENDING.set(stats.pending)
        metrics.OUTBOX_OLDEST_SECONDS.set(stats.oldest_age_s)
        metrics.OUTBOX_LANES_BACKOFF.set(stats.lanes_in_backoff)
        metrics.OUTBOX_DEAD.set(stats.dead)
        metrics.ENDPOINTS_PAUSED.set(stats.paused)

    async def _run(self) -> None:
        while not self._means.closing.is_set():
            self._outbox.wake.clear()
            try:
                sleep_s = await self._look()
            except Exception:  # noqa: BLE001 - a mistake of ours must not end all deliveries for good
                _log.exception("pump_crashed")
                sleep_s = DOWN_S
            if sleep_s:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._outbox.wake.wait(), sleep_s)

    async def _look(self) -> float:
        """Start on what is due; the seconds to sleep unless woken."""
        self._at_rest = False
        now = self._means.monotonic()
        free = self._free()
        # No endpoint may have more in work than what is left for all the others.
        self._crowded = free <= max((breaker.working for breaker in self._breakers.values()), default=0)
        if free <= 0:
            return self._outbox.poll_s  # a lane that ends wakes the pump
        room = self._room(free, now)
        full = self._full = frozenset(endpoint for endpoint, places in room.items() if not places)
        moves = [breaker.moves_at(now) for breaker in self._breakers.values()]
        try:
            leases = await self._outbox.claim(
                self._owner,
                # Half of what is free at most: when some endpoints hang, there is still room for another.
                min((free + 1) // 2, CLAIM),
                self._means.lease_s,
                each=min(free, self._per_endpoint, UNPROVEN),
                room=room,
            )
            due_s = await self._outbox.next_due(without=full) if not leases else 0.0
        except OutboxDown as error:
            if not self._down:
                _log.error("outbox_down", error=str(error))
            self._down = True
            return DOWN_S
        if self._down:
            _log.info("outbox_up")
        self._down = False
        for lease in leases:
            self._breaker(lease.endpoint).take(lease.lane, now)
            self._own(self._lane(lease, now).work(), lease.lane, lease.endpoint)
        self._at_rest = not leases
        return 0.0 if leases else self._rest_s(due_s, moves)

    def _room(self, free: int, now: float) -> dict[str, int]:
        """The room of every endpoint that there is something to say about."""
        self._breakers = {
            endpoint: breaker for endpoint, breaker in self._breakers.items() if not breaker.rests(now)
        }
        return {
            endpoint: max(0, min(breaker.room(now), free - breaker.working))
            for endpoint, breaker in self._breakers.items()
        }

    def _rest_s(self, due_s: float | None, moves: Sequence[float | None]) -> float:
        """Until a lane is due, a breaker moves, or it is time to look for what others did."""
        # What moved while the outbox was asked has moved: then there is no time to rest.
        now = self._means.monotonic()
        rests = [max(0.0, at - now) for at in moves if at is not None]
        if due_s is not None:
            rests.append(max(due_s, LEAST_S))
        return min([self._outbox.poll_s, *rests])

    def _free(self) -> int:
        """How many more lanes may be taken up."""
        return self._in_flight - len(self._lanes)

    def _breaker(self, endpoint: str) -> Breaker:
        if endpoint not in self._breakers:
            self._breakers[endpoint] = Breaker(self._per_endpoint)
        return self._breakers[endpoint]

    def _keep_place(self, call_sid: str, endpoint: str, now: float) -> bool:
        """Keep a place for a lane that will be leased with what is published, unless others come before it."""
        waits = self._outbox.wake.is_set()  # something that the pump has not seen yet
        if not self._at_rest or waits or self._means.closing.is_set() or endpoint in self._full:
            return False
        breaker, lane = self._breaker(endpoint), lane_name(endpoint, call_sid)
        room = min(breaker.room(now), self._free() - breaker.working)
        if room <= 0 or not breaker.is_calm or breaker.has(lane):
            return False
        breaker.take(lane, now)
        return True

    def _lane(self, lease: LaneLease, now: float, *events: Stored) -> Lane:
        """A lane to work on, which has its place, and was leased at `now` or later."""
        metrics.LANES.labels("claimed").inc()
        return Lane(lease, now + self._means.lease_s, self._breaker(lease.endpoint), self._means, events)

    def _own(self, work: Coroutine[Any, Any, None], lane: str, endpoint: str) -> _Task:
        """A task that has the lane's place until it ends."""
        self._holders[lane] += 1
        task = _started(work)
        self._lanes.add(task)
        task.add_done_callback(partial(self._put_down, lane, endpoint))
        return task

    def _put_down(self, lane: str, endpoint: str, task: _Task) -> None:
        self._lanes.discard(task)
        if not task.cancelled():
            task.exception()  # who waits is told of it, and who gave up need not be
        self._holders[lane] -= 1
        if not self._holders[lane]:
            del self._holders[lane]
            self._breaker(endpoint).put_down(lane)
        if self._crowded or endpoint in self._full:
            self._outbox.wake.set()


def _started(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task; where Python can, it is run at once until it waits, as a busy loop takes milliseconds to come round."""
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
    return asyncio.create_task(work)
