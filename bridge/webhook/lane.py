"""One lane in work: its events are posted in order, each until it is accepted, handed back or buried."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from yarl import URL

from bridge import log, metrics
from bridge.outbox.lease import Fenced, LaneLease
from bridge.outbox.outbox import Outbox, OutboxDown, Stored, endpoint_tag
from bridge.webhook import schedule
from bridge.webhook.breaker import Breaker
from bridge.webhook.sender import Outcome, Sender

LEASE_S = 15.0
"""Covers the slowest POST (10 s, and half a second for its answer's body) and 4.5 s in all for the outbox
around it: the claim's answer, the peek, and the ack or retry. An outbox that takes longer than that loses the
lane to another process that shares it, which causes a duplicate, nothing worse. Not longer, as the lanes of a
dead process wait for it."""

PEEK = 10
"""Events of a lane to hold in memory."""

AGAIN_S = 0.25
"""Between attempts to tell an outbox that is down what was accepted."""

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Means:
    """What every lane works with."""

    outbox: Outbox
    sender: Sender
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    """0 to 1."""
    lease_s: float = LEASE_S
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Start no more POSTs."""


class Lane:
    """A leased lane; `until` (of the monotonic clock) is when the lease ends.

    `events` are its first ones, where they are known; else the outbox is asked.
    """

    def __init__(
        self,
        lease: LaneLease,
        until: float,
        breaker: Breaker,
        means: Means,
        events: Sequence[Stored] = (),
    ) -> None:
        self._lease = lease
        self._events = events
        self._until = until
        self._breaker = breaker
        self._means = means
        self._outbox = means.outbox
        self._failures = lease.attempts
        self._first_failure = lease.first_failure
        # Why events that are past their time are given up without a POST of their own; None: they are not.
        self._hopeless: str | None = None

    async def work(self) -> None:
        """Work the lane off. What goes wrong here leaves it to the end of its lease, so nothing spins."""
        try:
            await self._drain()
        except asyncio.CancelledError:
            await self._outbox.release(self._lease)
            raise
        except Fenced:
            metrics.LANES.labels("fenced").inc()
            _log.warning("lane_fenced", **self._names())
        except OutboxDown as error:
            self._leave()
            _log.error("lane_left", error=str(error), **self._names())
        except Exception:  # noqa: BLE001 - one broken lane must not end the deliveries of the others
            self._leave()
            _log.exception("lane_crashed", **self._names())

    def _leave(self) -> None:
        metrics.LANES.labels("left").inc()
        self._outbox.wake.set()  # the pump is to learn when the lease ends

    async def _drain(self) -> None:
        if self._means.monotonic() >= self._until:  # the outbox took longer than the lease to give it
            return await self._outbox.release(self._lease)
        events = self._events
        while not self._means.closing.is_set() and (events := events or await self._peek()):
            for event in events:
                if self._means.closing.is_set():
                    return await self._outbox.release(self._lease)
                if await self._goes_unsent(event):
                    continue
                if not self._breaker.admits(self._lease.lane):
                    return await self._outbox.release(self._lease)
                if not await self._deliver(event):
                    return None
            events = ()
        return await self._outbox.release(self._lease)

    async def _peek(self) -> Sequence[Stored]:
        return await self._outbox.peek(self._lease, PEEK)

    async def _goes_unsent(self, event: Stored) -> bool:
        """Give the lane's head up without a POST, if it is past its time as those before it were."""
        if self._hopeless is None or not self._breaker.is_open or not self._is_spent(event, down=True):
            return False
        await self._bury(event, None, f"not sent, as the one before it failed: {self._hopeless}")
        return True

    async def _deliver(self, event: Stored) -> bool:
        """Try the lane's head; whether the lane is still ours."""
        lease = self._lease
        if not self._failures and not lease.replay:
            metrics.DELIVERY_ADDED_SECONDS.observe(max(0.0, self._means.clock() - event.created_at))
        with metrics.POSTS_OPEN.track_inprogress():
            outcome = await self._means.sender.post(
                lease.endpoint, event.event_id, event.body, replay=lease.replay
            )
        if outcome.accepted:
            metrics.DELIVERIES.labels("accepted").inc()
            self._tell_success()
            more = await self._ack(event)
            if self._first_failure is not None:
                _log.info("lane_recovered", sequence=event.sequence, **self._names())
            self._failures, self._first_failure = 0, None
            return more
        if outcome.status == 410:
            metrics.DELIVERIES.labels("gone").inc()
            await self._outbox.pause(lease.endpoint, outcome.error)
            await self._outbox.retry(lease, event.position, 0.0, outcome.status, outcome.error)
            _log.warning("endpoint_paused", status=410, **self._endpoint())
            return False
        metrics.DELIVERIES.labels("failed").inc()
        if outcome.refused:
            self._tell_success()
        else:
            self._tell_failure(outcome)
        return await self._fail(event, outcome)

    def _tell_success(self) -> None:
        breaker, now = self._breaker, self._means.monotonic()
        was_open, was_full = breaker.is_open, not breaker.room(now)
        breaker.succeeded(self._lease.lane, now)
        if was_open and not breaker.is_open:
            _log.info("endpoint_recovered", **self._endpoint())
        if was_full and breaker.room(now):
            self._outbox.wake.set()

    def _tell_failure(self, outcome: Outcome) -> None:
        was_open = self._breaker.is_open
        self._breaker.failed(self._lease.lane, self._means.monotonic(), again=self._failures > 0)
        if self._breaker.is_open and not was_open:
            _log.warning("endpoint_breaker_open", error=outcome.error, **self._endpoint())

    async def _ack(self, event: Stored) -> bool:
        """Note that the event was accepted: as long as nobody else may have the lane, nothing is more important.

        Returns whether more is pending, and so the lane still ours.
        """
        unsure = False
        while True:
            asked = self._means.monotonic()
            try:
                more = await self._outbox.ack(self._lease, event.position)
            except OutboxDown:
                if asked + AGAIN_S >= self._until:
                    raise
                unsure = True
                await asyncio.sleep(AGAIN_S)
            except Fenced:
                # An ack whose answer was lost may have counted: then the lane is ours, and past the event.
                if not unsure:
                    raise
                return await self._has_more()
            else:
                self._until = asked + self._means.lease_s
                return more

    async def _has_more(self) -> bool:
        try:
            return bool(await self._outbox.peek(self._lease, 1))
        except Fenced:
            return False  # given back by the ack that counted, or taken by another: nothing is left for us

    async def _fail(self, event: Stored, outcome: Outcome) -> bool:
        down = self._breaker.is_open
        # The head before was given up: that this one fails too says that it was not the event's fault.
        second = self._first_failure is not None and not self._failures
        if self._first_failure is None:
            self._first_failure = self._means.clock()
            _log.warning("lane_failing", **self._about(event, outcome.status, outcome.error))
        self._failures += 1
        if self._is_spent(event, down=down):
            await self._bury(event, outcome.status, outcome.error)
            if down and second:
                self._hopeless = outcome.error
            return True
        wait_s = schedule.wait_s(
            self._failures,
            self._means.jitter,
            throttled=outcome.throttled,
            retry_after_s=outcome.retry_after_s,
        )
        await self._outbox.retry(self._lease, event.position, wait_s, outcome.status, outcome.error)
        return False

    def _is_spent(self, event: Stored, *, down: bool) -> bool:
        now = self._means.clock()
        since = now if self._first_failure is None else self._first_failure
        return schedule.is_spent(
            now, failures=self._failures, first_failure=since, created_at=event.created_at, down=down
        )

    async def _bury(self, event: Stored, status: int | None, error: str) -> None:
        await self._outbox.bury(self._lease, event.position, status, error)
        metrics.DELIVERIES.labels("buried").inc()
        _log.error("event_buried", **self._about(event, status, error))
        self._failures = 0

    def _about(self, event: Stored, status: int | None, error: str) -> dict[str, Any]:
        why = {"status": status, "error": error, "sequence": event.sequence, "type": event.type}
        return {**why, **self._names()}

    def _names(self) -> dict[str, Any]:
        return {**self._endpoint(), "call_sid": self._lease.call_sid}

    def _endpoint(self) -> dict[str, Any]:
        endpoint = self._lease.endpoint
        return {"host": URL(endpoint).host, "endpoint": endpoint_tag(endpoint)}
