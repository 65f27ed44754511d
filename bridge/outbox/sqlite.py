"""The outbox of one machine: one SQLite file of one process, written by one thread."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from bridge import metrics
from bridge.outbox import calls, expiry, lanes, numbers, operations, owners
from bridge.outbox.attachments import Attachment
from bridge.outbox.file import empty_log, open_file, scrub
from bridge.outbox.lease import CallLease, LaneLease
from bridge.outbox.outbox import Line, Outgoing, Record, Selection, Stats, Stored
from bridge.outbox.ownership import Known
from bridge.outbox.writer import Writer

T = TypeVar("T")


class Sqlite:
    """The `Outbox` in `directory`/outbox.sqlite3. `clock` gives seconds since 1970.

    Methods behave, and raise, as `Outbox` says.
    """

    poll_s = 60.0

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self.wake = asyncio.Event()
        self._directory = directory
        self._clock = clock
        self._writer = Writer()

    async def open(self) -> None:
        """Create or open the file and lock it; leases, pauses and beats of the last process are void.

        Raises `ConfigError` and `OutboxDown`.
        """
        await self._writer.start(partial(open_file, self._directory))
        try:
            await self._writer.run(self._dated(lanes.start_afresh), committed=self.wake.set)
        except BaseException:
            await self._writer.close()
            raise

    async def close(self) -> None:
        """Commit what waits, close the file, give up the lock. May be called twice."""
        await self._writer.close()

    async def own_call(
        self, call_sid: str, owner: str, meta: bytes, *, node: str = "", only_from: str | None = None
    ) -> CallLease:
        """Take the call over: the epoch goes up by one."""
        call = partial(owners.own, call_sid=call_sid, owner=owner, meta=meta)
        return await self._writer.run(self._dated(partial(call, node=node, only_from=only_from)))

    async def note(self, lease: CallLease, meta: bytes) -> None:
        """Replace what is said of the call."""
        await self._writer.run(self._dated(partial(owners.note, lease=lease, meta=meta)))

    async def inherit(
        self, call_sid: str, heir: str, meta: bytes, *, node: str, silent_s: float
    ) -> CallLease | None:
        """Take the call over if nobody is at work on it; else its owner learns of the heir, and None."""
        call = partial(owners.inherit, call_sid=call_sid, heir=heir, meta=meta)
        return await self._writer.run(self._dated(partial(call, node=node, silent_s=silent_s)))

    async def let_go(self, lease: CallLease) -> None:
        """Give the call up without an end."""
        await self._writer.run(partial(owners.let_go, lease=lease))

    async def beat(self, node: str) -> Mapping[str, str]:
        """Say that a node lives; its calls that have not ended, each with its heir or ""."""
        beat = self._dated(partial(owners.beat, node=node))
        return await self._writer.run(beat, durable=False)  # the next start voids it anyway

    async def died(self, node: str) -> None:
        """Say that a node is no more."""
        died = self._dated(partial(owners.died, node=node))
        await self._writer.run(died, committed=self.wake.set, durable=False)  # the next start voids it anyway

    async def orphans(self, silent_s: float, limit: int) -> list[Known]:
        """Calls that have not ended and that nobody is at work on; the oldest first."""
        look = self._dated(partial(owners.orphans, silent_s=silent_s, limit=limit))
        return await self._writer.run(look, durable=False)

    async def known(self, call_sid: str) -> Known | None:
        """What is known of a call; None for one that never was, or is past its time."""
        look = self._dated(partial(owners.known, call_sid=call_sid))
        return await self._writer.run(look, durable=False)

    async def attach(self, attachment: Attachment) -> Attachment:
        """Remember a number; returns what is stored."""
        return await self._writer.run(partial(numbers.attach, attachment=attachment))

    async def detach(self, number_sid: str) -> None:
        """Forget a number."""
        await self._writer.run(partial(numbers.detach, number_sid=number_sid))

    async def attached(self) -> list[Attachment]:
        """All of them, in the order of their numbers."""
        return await self._writer.run(numbers.attached, durable=False)

    async def publish(
        self,
        lease: CallLease,
        events: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        lines: Sequence[Line] = (),
        ended: bool = False,
        deliverer: str = "",
        lease_s: float = 0.0,
    ) -> list[LaneLease]:
        """Store events, lines and watermarks in one transaction, durable on return; the deliverer's leases."""
        operation = partial(
            calls.publish,
            lease=lease,
            events=tuple(events),
            watermarks=dict(watermarks),
            lines=tuple(lines),
            ended=ended,
            deliverer=deliverer,
            lease_s=lease_s,
        )
        with metrics.OUTBOX_PUBLISH_SECONDS.time():
            # What goes to nobody is to be claimed, also when the caller has given up by then.
            wake = self.wake.set if events and not deliverer else None
            leases = await self._writer.run(self._dated(operation), committed=wake)
        if deliverer and not leases:
            self.wake.set()
        return leases

    async def transcript(self, call_sid: str) -> list[Line]:
        """The lines stored of a call, in the order of their numbers."""
        return await self._writer.run(partial(calls.transcript, call_sid=call_sid), durable=False)

    async def spend(self, nonce: str, expires: float) -> bool:
        """Remember that a stream token was used; False if it was used before."""
        return await self._writer.run(self._dated(partial(calls.spend, nonce=nonce, expires=expires)))

    async def claim(
        self,
        owner: str,
        limit: int,
        lease_s: float,
        *,
        each: int = 100,
        room: Mapping[str, int] | None = None,
    ) -> list[LaneLease]:
        """Lease up to `limit` due lanes; of an endpoint, `room[endpoint]` or else `each` at most."""
        operation = partial(
            lanes.claim, owner=owner, limit=limit, lease_s=lease_s, each=each, room=dict(room or {})
        )
        # The next start voids leases anyway.
        return await self._writer.run(self._dated(operation), durable=False)

    async def peek(self, lane: LaneLease, limit: int = 20) -> list[Stored]:
        """The lane's next pending events in order."""
        return await self._writer.run(partial(lanes.peek, lane=lane, limit=limit), durable=False)

    async def ack(self, lane: LaneLease, position: int) -> bool:
        """The event was accepted; whether more is pending. The lease is extended then, and over if not."""
        return await self._writer.run(
            self._dated(partial(lanes.ack, lane=lane, position=position)),
            durable=False,  # lost with the power, it is a duplicate: a publish waits for the disk, not this
        )

    async def retry(
        self, lane: LaneLease, position: int, delay_s: float, status: int | None, error: str
    ) -> None:
        """The event was not accepted: give the lane back until `delay_s` from now."""
        operation = partial(
            lanes.retry, lane=lane, position=position, delay_s=delay_s, status=status, error=error
        )
        await self._writer.run(self._dated(operation), committed=self.wake.set, durable=False)

    async def bury(self, lane: LaneLease, position: int, status: int | None, reason: str) -> None:
        """Give the event up; the lane goes on with the next."""
        operation = partial(lanes.bury, lane=lane, position=position, status=status, reason=reason)
        await self._writer.run(self._dated(operation))

    async def release(self, lane: LaneLease) -> None:
        """Give the lane back, due at once if anything is pending."""
        operation = self._dated(partial(lanes.release, lane=lane))
        await self._writer.run(operation, committed=self.wake.set, durable=False)

    async def pause(self, endpoint: str, reason: str) -> None:
        """Claim no lane of the endpoint until a replay names it or the next `open`; its events are kept."""
        await self._writer.run(partial(lanes.pause, endpoint=endpoint, reason=reason))

    async def next_due(self, *, without: Collection[str] = ()) -> float | None:
        """Seconds (0 or more) until a lane becomes due, leased ones included; None if nothing is pending."""
        look = partial(lanes.next_due, without=frozenset(without))
        return await self._writer.run(self._dated(look), durable=False)

    async def records(self, selection: Selection, limit: int, *, before: int | None = None) -> list[Record]:
        """Selected events, the last stored first; with `before`, those of smaller `serial`."""
        found: list[Record] = []
        while True:
            look = partial(operations.records, selection=selection, limit=limit - len(found), before=before)
            some, before = await self._writer.run(look, durable=False)
            found += some
            if before is None:
                return found

    async def replay(self, selection: Selection) -> int:
        """Deliver selected events again, with the same id and bytes; how many."""
        end = await self._writer.run(partial(operations.begin, selection=selection), committed=self.wake.set)
        count = 0
        after: str | None = ""
        while after is not None:
            few = partial(operations.hasten, selection=selection, after=after, end=end)
            events, after = await self._writer.run(self._dated(few), committed=self.wake.set)
            count += events
        first: int | None = 1
        while first is not None:
            bite = partial(operations.replay, selection=selection, first=first, end=end)
            moved, first = await self._writer.run(self._dated(bite), committed=self.wake.set)
            count += moved
        return count

    async def erase(self, call_sid: str) -> int:
        """Remove the bodies of a call's events, and every trace of them in the file; how many bodies.

        The file is rewritten for it, so publishes wait: some 6 ms for each MB.
        """
        try:
            return await self._writer.run(partial(operations.erase, call_sid=call_sid), afterwards=scrub)
        except LookupError:
            return 0

    async def purge(self, *, body_age_s: float, call_age_s: float, limit: int = 500) -> bool:
        """Remove up to `limit` old bodies, and as many rows of old calls; whether there may be more.

        As many lanes become due that wait since before the clock was set back.
        """
        mended = await self._writer.run(self._dated(partial(lanes.mend, limit=limit)), durable=False)
        if mended:
            self.wake.set()
        operation = partial(expiry.purge, body_age_s=body_age_s, call_age_s=call_age_s, limit=limit)
        # Lost with the power, it is done again.
        removed = await self._writer.run(self._dated(operation), durable=False)
        if any(removed):
            await self._writer.run(lambda _: None, afterwards=empty_log, durable=False)
        return limit in (mended, *removed)

    async def stats(self) -> Stats:
        """Count what waits."""
        return await self._writer.run(self._dated(lanes.stats), durable=False)

    def _dated(self, operation: Callable[..., T]) -> Callable[[sqlite3.Connection], T]:
        """With the time at which it is run: it may have waited, and a lease is not to be over when it is given."""
        return lambda db: operation(db, now=self._clock())
