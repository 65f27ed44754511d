"""A call that publishes, and how long its events took from there to their receiver."""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from random import Random
from typing import Self

from bridge.events import event_id
from bridge.local.receiver import Received
from bridge.outbox.lease import CallLease
from bridge.outbox.outbox import Outbox, Outgoing
from tests.chaos.history import Acknowledged

TEXT = "The quick brown fox jumps over the lazy dog. " * 6
"""As long as a final with its words."""


class Caller:
    """One call and its one endpoint. `committed` has when (`time.time()`) each event's publish returned."""

    def __init__(self, outbox: Outbox, endpoint: str, lease: CallLease) -> None:
        self.committed: dict[str, float] = {}
        self.acknowledged: list[Acknowledged] = []
        self._outbox = outbox
        self._endpoint = endpoint
        self._lease = lease
        self._next = lease.next_sequence

    @classmethod
    async def of(cls, outbox: Outbox, endpoint: str, call_sid: str) -> Self:
        """Begin the call."""
        return cls(outbox, endpoint, await outbox.own_call(call_sid, "caller", b""))

    async def publish(self, count: int = 1) -> None:
        """Publish the next `count` events in one transaction."""
        events = [self._event(self._next + n) for n in range(count)]
        self._next += count
        await self._outbox.publish(self._lease, events, {})
        now = time.time()
        for event in events:
            self.committed[event.event_id] = now
            digest = sha256(event.body).hexdigest()
            self.acknowledged.append(
                Acknowledged(self._lease.call_sid, event.sequence, event.event_id, digest)
            )

    async def spread(self, count: int, seconds: float, random: Random) -> None:
        """Publish `count` events one by one, at any time within `seconds`."""
        began = time.monotonic()
        for at in sorted(random.uniform(0, seconds) for _ in range(count)):
            await asyncio.sleep(began + at - time.monotonic())
            await self.publish()

    def _event(self, sequence: int) -> Outgoing:
        call_sid = self._lease.call_sid
        kind = "call.started" if sequence == 1 else "transcript.final"
        body = {"type": kind, "data": {"call_sid": call_sid, "sequence": sequence, "text": TEXT}}
        identity = event_id(call_sid, self._endpoint, sequence, kind)
        return Outgoing(self._endpoint, sequence, identity, kind, json.dumps(body).encode())


def acknowledged(callers: Iterable[Caller]) -> Iterator[Acknowledged]:
    """Every event whose publish returned."""
    for caller in callers:
        yield from caller.acknowledged


def delays_ms(callers: Iterable[Caller], received: Sequence[Received]) -> list[float]:
    """From the return of each event's publish to its first request at the receiver, sorted."""
    first: dict[str, float] = {}
    for one in received:
        first.setdefault(one.webhook_id, one.received_at)
    return sorted(
        1000 * (first[identity] - at)
        for caller in callers
        for identity, at in caller.committed.items()
        if identity in first
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """Of sorted values: the least one that so many percent of them do not exceed."""
    return values[min(len(values) - 1, int(len(values) * percent / 100))]
