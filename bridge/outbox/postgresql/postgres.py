"""The outbox of many machines: one PostgreSQL database that all of them write."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from bridge import metrics
from bridge.outbox.attachments import Attachment
from bridge.outbox.lease import CallLease, LaneLease
from bridge.outbox.outbox import Line, Outgoing, Record, Selection, Stats, Stored
from bridge.outbox.ownership import Known
from bridge.outbox.postgresql import calls, lanes, numbers, operations, owners, retention, schema
from bridge.outbox.postgresql.pool import Pool


class Postgres:
    """The `Outbox` in the database that `url` names. `clock` gives seconds since 1970; None: the database does.

    Methods behave, and raise, as `Outbox` says. Any number of processes may have one on the same database.
    With `accept_loss` it takes a server that confirms commits which are not on any disk yet.
    """

    poll_s = 0.25
    """One indexed statement. NOTIFY would spare it, but takes a lock of the whole database at each commit."""

    def __init__(
        self, url: str, clock: Callable[[], float] | None = None, *, accept_loss: bool = False
    ) -> None:
        self.wake = asyncio.Event()
        self._pool = Pool(url)
        self._clock = clock
        self._accept_loss = accept_loss

    async def open(self) -> None:
        """Connect, and make the tables if they are not there; endpoints are paused no more.

        Leases stay: others live. Raises `ConfigError` and `OutboxDown`.
        """
        await self._pool.open(partial(schema.prepare, at=self._at(), accept_loss=self._accept_loss))
        self.wake.set()

    async def close(self) -> None:
        """Finish what was asked for, and disconnect. May be called twice."""
        await self._pool.close()

    async def own_call(
        self, call_sid: str, owner: str, meta: bytes, *, node: str = "", only_from: str | None = None
    ) -> CallLease:
        """Take the call over: the epoch goes up by one."""
        call = partial(owners.own, call_sid=call_sid, owner=owner, meta=meta)
        return await self._pool.run(partial(call, node=node, only_from=only_from, at=self._at()))

    async def note(self, lease: CallLease, meta: bytes) -> None:
        """Replace what is said of the call."""
        await self._pool.run(partial(owners.note, lease=lease, meta=meta, at=self._at()))

    async def inherit(
        self, call_sid: str, heir: str, meta: bytes, *, node: str, silent_s: float
    ) -> CallLease | None:
        """Take the call over if nobody is at work on it; else its owner learns of the heir, and None."""
        call = partial(owners.inherit, call_sid=call_sid, heir=heir, meta=meta)
        return await self._pool.run(partial(call, node=node, silent_s=silent_s, at=self._at()))

    async def let_go(self, lease: CallLease) -> None:
        """Give the call up without an end."""
        await self._pool.run(partial(owners.let_go, lease=lease))

    async def beat(self, node: str) -> Mapping[str, str]:
        """Say that a node lives; its calls that have not ended, each with its heir or ""."""
        return await self._pool.run(partial(owners.beat, node=node, at=self._at()))

    async def died(self, node: str) -> None:
        """Say that a node is no more."""
        await self._pool.run(partial(owners.died, node=node, at=self._at()), self.wake.set)

    async def orphans(self, silent_s: float, limit: int) -> list[Known]:
        """Calls that have not ended and that nobody is at work on; the oldest first."""
        return await self._pool.run(partial(owners.orphans, silent_s=silent_s, limit=limit, at=self._at()))

    async def known(self, call_sid: str) -> Known | None:
        """What is known of a call; None for one that never was, or is past its time."""
        return await self._pool.run(partial(owners.known, call_sid=call_sid, at=self._at()))

    async def attach(self, attachment: Attachment) -> Attachment:
        """Remember a number; returns what is stored."""
        return await self._pool.run(partial(numbers.attach, attachment=attachment))

    async def detach(self, number_sid: str) -> None:
        """Forget a number."""
        await self._pool.run(partial(numbers.detach, number_sid=number_sid))

    async def attached(self) -> list[Attachment]:
        """All of them, in the order of their numbers."""
        return await self._pool.run(numbers.attached)

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
            at=self._at(),
        )
        with metrics.OUTBOX_PUBLISH_SECONDS.time():
            leases = await self._pool.run(operation, self.wake.set if events and not deliverer else None)
        if deliverer and not leases:
            self.wake.set()
        return leases

    async def transcript(self, call_sid: str) -> list[Line]:
        """The lines stored of a call, in the order of their numbers."""
        return await self._pool.run(partial(calls.transcript, call_sid=call_sid))

    async def spend(self, nonce: str, expires: float) -> bool:
        """Remember that a stream token was used; False if it was used before."""
        return await self._pool.run(partial(calls.spend, nonce=nonce, expires=expires, at=self._at()))

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
        return await self._pool.run(
            partial(
                lanes.claim,
                owner=owner,
                limit=limit,
                lease_s=lease_s,
                each=each,
                room=dict(room or {}),
                at=self._at(),
            )
        )

    async def peek(self, lane: LaneLease, limit: int = 20) -> list[Stored]:
        """The lane's next pending events in order."""
        return await self._pool.run(partial(lanes.peek, lane=lane, limit=limit))

    async def ack(self, lane: LaneLease, position: int) -> bool:
        """The event was accepted; whether more is pending. The lease is extended then, and over if not."""
        return await self._pool.run(partial(lanes.ack, lane=lane, position=position, at=self._at()))

    async def retry(
        self, lane: LaneLease, position: int, delay_s: float, status: int | None, error: str
    ) -> None:
        """The event was not accepted: give the lane back until `delay_s` from now."""
        operation = partial(
            lanes.retry,
            lane=lane,
            position=position,
            delay_s=delay_s,
            status=status,
            error=error,
            at=self._at(),
        )
        await self._pool.run(operation, self.wake.set)

    async def bury(self, lane: LaneLease, position: int, status: int | None, reason: str) -> None:
        """Give the event up; the lane goes on with the next."""
        await self._pool.run(
            partial(lanes.bury, lane=lane, position=position, status=status, reason=reason, at=self._at())
        )

    async def release(self, lane: LaneLease) -> None:
        """Give the lane back, due at once if anything is pending."""
        await self._pool.run(partial(lanes.release, lane=lane, at=self._at()), self.wake.set)

    async def pause(self, endpoint: str, reason: str) -> None:
        """Claim no lane of the endpoint until a replay or any bridge's next start; its events are kept."""
        await self._pool.run(partial(lanes.pause, endpoint=endpoint, reason=reason))

    async def next_due(self, *, without: Collection[str] = ()) -> float | None:
        """Seconds (0 or more) until a lane becomes due, leased ones included; None if nothing is pending."""
        return await self._pool.run(partial(lanes.next_due, without=frozenset(without), at=self._at()))

    async def records(self, selection: Selection, limit: int, *, before: int | None = None) -> list[Record]:
        """Selected events, the last stored first; with `before`, those of smaller `serial`."""
        return await self._pool.run(
            partial(operations.records, selection=selection, limit=limit, before=before)
        )

    async def replay(self, selection: Selection) -> int:
        """Deliver selected events again, with the same id and bytes; how many."""
        return await self._pool.run(
            partial(operations.replay, selection=selection, at=self._at()), self.wake.set
        )

    async def erase(self, call_sid: str) -> int:
        """Remove the bodies of a call's events, deliver none of them, and take no more; how many bodies."""
        return await self._pool.run(partial(operations.erase, call_sid=call_sid))

    async def purge(self, *, body_age_s: float, call_age_s: float, limit: int = 500) -> bool:
        """Remove up to `limit` bodies delivered `body_age_s` ago, and calls that began `call_age_s` ago."""
        return await self._pool.run(
            partial(retention.purge, body_age_s=body_age_s, call_age_s=call_age_s, limit=limit, at=self._at())
        )

    async def stats(self) -> Stats:
        """Count what waits."""
        return await self._pool.run(partial(lanes.stats, at=self._at()))

    def _at(self) -> float | None:
        return None if self._clock is None else self._clock()
