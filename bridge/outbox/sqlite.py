"""The outbox of one machine: one SQLite file, written by one thread of one process.

Lane leases matter little with one process; they keep the interface that a shared store needs.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bridge import metrics
from bridge.outbox import calls, lanes
from bridge.outbox.file import open_file
from bridge.outbox.outbox import CallLease, LaneLease, Outgoing, Stats, Stored
from bridge.outbox.writer import Writer


class Sqlite:
    """The `Outbox` in `directory`/outbox.sqlite3. `clock` gives seconds since 1970.

    Methods behave, and raise, as `Outbox` says.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.wake = asyncio.Event()
        self._directory = directory
        self._clock = clock
        self._writer = Writer()

    async def open(self) -> None:
        """Create or open the file and lock it; leases and pauses of the last process are void.

        Raises `ConfigError` and `OutboxDown`.
        """
        await self._writer.start(partial(open_file, self._directory))
        try:
            await self._writer.run(partial(lanes.start_afresh, now=self._clock()), committed=self.wake.set)
        except BaseException:
            await self._writer.close()
            raise

    async def close(self) -> None:
        """Commit what waits, close the file, give up the lock. May be called twice."""
        await self._writer.close()

    async def own_call(self, call_sid: str, owner: str, meta: bytes) -> CallLease:
        """Take the call over: the epoch goes up by one."""
        return await self._writer.run(
            partial(calls.own, call_sid=call_sid, owner=owner, meta=meta, now=self._clock())
        )

    async def publish(
        self,
        lease: CallLease,
        events: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        ended: bool = False,
    ) -> None:
        """Store events and watermarks in one transaction, durable on return."""
        operation = partial(
            calls.publish,
            lease=lease,
            events=tuple(events),
            watermarks=dict(watermarks),
            ended=ended,
            now=self._clock(),
        )
        with metrics.OUTBOX_PUBLISH_SECONDS.time():
            await self._writer.run(operation, committed=self.wake.set if events else None)

    async def spend(self, nonce: str, expires: float) -> bool:
        """Remember that a stream token was used; False if it was used before."""
        return await self._writer.run(partial(calls.spend, nonce=nonce, expires=expires, now=self._clock()))

    async def claim(
        self, owner: str, limit: int, lease_s: float, *, per_endpoint: int = 100
    ) -> list[LaneLease]:
        """Lease up to `limit` due lanes, with no endpoint above `per_endpoint` lanes of this owner."""
        return await self._writer.run(
            partial(
                lanes.claim,
                owner=owner,
                limit=limit,
                lease_s=lease_s,
                per_endpoint=per_endpoint,
                now=self._clock(),
            ),
            durable=False,  # the next start voids leases anyway
        )

    async def peek(self, lane: LaneLease, limit: int = 20) -> list[Stored]:
        """The lane's next pending events in order."""
        return await self._writer.run(partial(lanes.peek, lane=lane, limit=limit), durable=False)

    async def ack(self, lane: LaneLease, sequence: int) -> None:
        """The event was accepted; the lease is extended."""
        await self._writer.run(
            partial(lanes.ack, lane=lane, sequence=sequence, now=self._clock()),
            durable=False,  # lost with the power, it is a duplicate: a publish waits for the disk, not this
        )

    async def retry(
        self, lane: LaneLease, sequence: int, delay_s: float, status: int | None, error: str
    ) -> None:
        """The event was not accepted: give the lane back until `delay_s` from now."""
        operation = partial(
            lanes.retry,
            lane=lane,
            sequence=sequence,
            delay_s=delay_s,
            status=status,
            error=error,
            now=self._clock(),
        )
        await self._writer.run(operation, committed=self.wake.set, durable=False)

    async def bury(self, lane: LaneLease, sequence: int, reason: str) -> None:
        """Give the event up; the lane goes on with the next."""
        await self._writer.run(
            partial(lanes.bury, lane=lane, sequence=sequence, reason=reason, now=self._clock())
        )

    async def release(self, lane: LaneLease) -> None:
        """Give the lane back, due at once if anything is pending."""
        await self._writer.run(
            partial(lanes.release, lane=lane, now=self._clock()),
            committed=self.wake.set,
            durable=False,
        )

    async def pause(self, endpoint: str, reason: str) -> None:
        """Claim no lane of the endpoint until the next `open`; its events are kept."""
        await self._writer.run(partial(lanes.pause, endpoint=endpoint, reason=reason))

    async def next_due(self) -> float | None:
        """Seconds (0 or more) until a lane becomes due, leased ones included; None if nothing is pending."""
        return await self._writer.run(partial(lanes.next_due, now=self._clock()), durable=False)

    async def stats(self) -> Stats:
        """Count what waits."""
        return await self._writer.run(partial(lanes.stats, now=self._clock()), durable=False)
