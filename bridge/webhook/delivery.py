"""The pump: takes due lanes from the outbox and works each one off in order, event by event.

An event is sent when every earlier one of its lane was accepted or buried. A lane whose event fails
goes back to the outbox until its next attempt is due, and holds up nothing but itself.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from yarl import URL

from bridge import log, metrics
from bridge.outbox.outbox import Fenced, LaneLease, Outbox, OutboxDown, Stored, endpoint_tag
from bridge.webhook import schedule
from bridge.webhook.sender import Outcome, Secrets, Sender
from bridge.webhook.target import Targets

IN_FLIGHT = 500
PER_ENDPOINT = 100
CLAIM = 64
"""Lanes to take in one go. A few at a time, as each look shares what is free anew among the endpoints."""

PEEK = 10
"""Events of a lane to hold in memory."""

LEASE_S = 30.0
"""Longer than one POST and the outbox's answer; a lane that something went wrong with is taken up again then."""

IDLE_S = 60.0
"""The longest sleep, in case the wall clock was set meanwhile."""

CROWDED_S = 0.05
"""The shortest sleep while due lanes wait for their endpoint's turn."""

DOWN_S = 1.0
"""Between looks at an outbox that is down."""

_log = log.get(__name__)


@dataclass(slots=True)
class _Lane:
    """A lane in work: its lease and how its head fares."""

    lease: LaneLease
    failures: int
    first_failure: float | None

    def names(self) -> dict[str, Any]:
        return {
            "host": URL(self.lease.endpoint).host,
            "endpoint": endpoint_tag(self.lease.endpoint),
            "call_sid": self.lease.call_sid,
        }


class Delivery:
    """Delivers what the outbox holds. An async context manager, or `start` and `close`.

    `clock` gives seconds since 1970, `jitter` 0 to 1. At most `in_flight` POSTs run at a time,
    `per_endpoint` to one endpoint, one per lane.
    """

    def __init__(
        self,
        outbox: Outbox,
        secrets: Secrets,
        targets: Targets,
        *,
        owner: str = "bridge",
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        in_flight: int = IN_FLIGHT,
        per_endpoint: int = PER_ENDPOINT,
    ) -> None:
        self._outbox = outbox
        self._sender = Sender(secrets, targets, clock=clock)
        self._owner = owner
        self._clock = clock
        self._jitter = jitter
        self._in_flight = in_flight
        self._per_endpoint = per_endpoint
        self._lanes: set[asyncio.Task[None]] = set()
        self._pump: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._down = False
        # Due lanes wait for a POST to end: in all, or to their endpoint.
        self._crowded = False

    async def start(self) -> None:
        """Begin to deliver from an open outbox."""
        await self._sender.start()
        self._pump = asyncio.create_task(self._run(), name="webhook-pump")

    async def close(self, grace_s: float = 1.0) -> None:
        """Take no more lanes, give POSTs that are under way `grace_s`, hand every lane back."""
        self._closing.set()
        self._outbox.wake.set()
        if self._pump is not None:
            await self._pump
        if self._lanes:
            await asyncio.wait(self._lanes, timeout=grace_s)
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        await self._sender.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def measure(self) -> None:
        """Bring the outbox's gauges up to date: call it before `/metrics` is rendered. Raises `OutboxDown`."""
        stats = await self._outbox.stats()
        metrics.OUTBOX_PENDING.set(stats.pending)
        metrics.OUTBOX_OLDEST_SECONDS.set(stats.oldest_age_s)
        metrics.OUTBOX_LANES_BACKOFF.set(stats.lanes_in_backoff)
        metrics.OUTBOX_DEAD.set(stats.dead)

    async def _run(self) -> None:
        while not self._closing.is_set():
            self._outbox.wake.clear()
            try:
                sleep_s = await self._look()
            except Exception:  # noqa: BLE001 - a mistake of ours must not end all deliveries for good
                _log.exception("pump_crashed")
                sleep_s = DOWN_S
            if sleep_s:
                await self._sleep(sleep_s)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._outbox.wake.wait()

    async def _look(self) -> float:
        """Start on what is due; the seconds to sleep unless woken."""
        free = self._in_flight - len(self._lanes)
        self._crowded = free <= 0
        if self._crowded:
            return IDLE_S  # a lane that ends wakes the pump
        try:
            leases = await self._outbox.claim(
                self._owner,
                # Half of what is free at most, and for no endpoint more than what is left for all: when
                # some endpoints hang, there is still room for another.
                min((free + 1) // 2, CLAIM),
                LEASE_S,
                per_endpoint=min(free, self._per_endpoint),
            )
            due_s = await self._outbox.next_due() if not leases else 0.0
        except OutboxDown as error:
            if not self._down:
                _log.error("outbox_down", error=str(error))
            self._down = True
            return DOWN_S
        if self._down:
            _log.info("outbox_up")
        self._down = False
        for lease in leases:
            self._take_up(lease)
        if leases:
            return 0.0
        self._crowded = due_s == 0.0
        return IDLE_S if due_s is None else min(max(due_s, CROWDED_S), IDLE_S)

    def _take_up(self, lease: LaneLease) -> None:
        task = asyncio.create_task(self._work(_Lane(lease, lease.attempts, lease.first_failure)))
        self._lanes.add(task)
        task.add_done_callback(self._put_down)

    def _put_down(self, task: asyncio.Task[None]) -> None:
        self._lanes.discard(task)
        if self._crowded:
            self._outbox.wake.set()

    async def _work(self, lane: _Lane) -> None:
        """Work a lane off. What goes wrong here leaves it to the end of its lease, so nothing spins."""
        try:
            await self._drain(lane)
        except asyncio.CancelledError:
            await self._outbox.release(lane.lease)
            raise
        except Fenced:
            metrics.DELIVERIES.labels("fenced").inc()
            _log.warning("lane_fenced", **lane.names())
        except OutboxDown as error:
            _log.error("lane_left", error=str(error), **lane.names())
        except Exception:  # noqa: BLE001 - one broken lane must not end the deliveries of the others
            _log.exception("lane_crashed", **lane.names())

    async def _drain(self, lane: _Lane) -> None:
        while not self._closing.is_set() and (events := await self._outbox.peek(lane.lease, PEEK)):
            for event in events:
                if self._closing.is_set():
                    break
                if not await self._deliver(lane, event):
                    return
        await self._outbox.release(lane.lease)

    async def _deliver(self, lane: _Lane, event: Stored) -> bool:
        """Try the lane's head; whether the lane is still ours."""
        if not lane.failures:
            metrics.DELIVERY_ADDED_SECONDS.observe(max(0.0, self._clock() - event.created_at))
        outcome = await self._sender.post(lane.lease.endpoint, event.event_id, event.body)
        if outcome.accepted:
            metrics.DELIVERIES.labels("accepted").inc()
            await self._outbox.ack(lane.lease, event.sequence)
            if lane.first_failure is not None:
                _log.info("lane_recovered", sequence=event.sequence, **lane.names())
            lane.failures, lane.first_failure = 0, None
            return True
        if outcome.status == 410:
            metrics.DELIVERIES.labels("gone").inc()
            await self._pause(lane, event)
            return False
        metrics.DELIVERIES.labels("failed").inc()
        return await self._fail(lane, event, outcome)

    async def _pause(self, lane: _Lane, event: Stored) -> None:
        await self._outbox.pause(lane.lease.endpoint, "status 410")
        await self._outbox.release(lane.lease)
        _log.warning("endpoint_paused", status=410, sequence=event.sequence, **lane.names())

    async def _fail(self, lane: _Lane, event: Stored, outcome: Outcome) -> bool:
        now = self._clock()
        why = {
            "status": outcome.status,
            "error": outcome.error,
            "sequence": event.sequence,
            "type": event.type,
        }
        if lane.first_failure is None:
            lane.first_failure = now
            _log.warning("lane_failing", **why, **lane.names())
        lane.failures += 1
        if schedule.is_spent(
            now, failures=lane.failures, first_failure=lane.first_failure, created_at=event.created_at
        ):
            metrics.DELIVERIES.labels("buried").inc()
            await self._outbox.bury(lane.lease, event.sequence, outcome.error)
            _log.error("event_buried", **why, **lane.names())
            lane.failures = 0
            return True
        wait_s = schedule.wait_s(
            lane.failures, self._jitter, throttled=outcome.throttled, retry_after_s=outcome.retry_after_s
        )
        await self._outbox.retry(lane.lease, event.sequence, wait_s, outcome.status, outcome.error)
        return False
