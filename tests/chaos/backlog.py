"""A new call beside a backlog of 100,000 events that wait: it must not be noticed.

Half of the lanes wait for their next attempt, the others are due, but their endpoint is down.
"""

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.local.receiver import Answer, Receiver
from bridge.outbox.outbox import Outbox
from bridge.webhook.delivery import Delivery
from bridge.webhook.target import Targets
from tests.chaos.caller import Caller, percentile
from tests.chaos.engines import ENGINES, Engine, opened
from tests.chaos.scenario import Lacking
from tests.chaos.worker import SECRET

LOOKS: Final = 200
"""Claims that are timed."""

NEW_CALLS: Final = 20
HOUR_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Figures:
    """In milliseconds; the largest of several, but for `claim`."""

    engine: Engine
    pending: int
    claim: float
    """p99."""
    stats: float
    delivered: float

    def __str__(self) -> str:
        return (
            f"{self.engine}: beside {self.pending} waiting events a claim takes {self.claim:.1f} ms (p99), "
            f"counting them {self.stats:.0f} ms, a new call's event is delivered within {self.delivered:.0f} ms"
        )


async def run(
    directory: Path,
    *,
    lanes: int = 2000,
    events: int = 50,
    engines: Sequence[Engine] = ENGINES,
    most_claim_ms: float = 10.0,
    most_delivered_ms: float = 100.0,
) -> str:
    """Let `events` wait in each of `lanes` lanes."""
    lines = []
    for engine in engines:
        try:
            figures = await _measured(engine, directory / engine, lanes, events)
        except Lacking as lacking:
            lines.append(f"{engine}: {lacking}")
            continue
        assert figures.claim <= most_claim_ms, f"{figures}; {most_claim_ms:.0f} ms for a claim is the most"
        assert figures.delivered <= most_delivered_ms, f"{figures}; {most_delivered_ms:.0f} ms is the most"
        lines.append(str(figures))
    return "; ".join(lines)


async def _measured(engine: Engine, directory: Path, lanes: int, events: int) -> Figures:
    async with (
        opened(engine, directory) as outbox,
        Receiver(SECRET) as receiver,
        Receiver(SECRET) as down,
    ):
        down.default = Answer(503)
        await _fill(outbox, "https://backoff.example/", range(lanes // 2), events)
        while leases := await outbox.claim("backlog", 500, 15.0, each=500):
            await asyncio.gather(*(outbox.retry(lease, 1, HOUR_S, 503, "status 503") for lease in leases))
        await _fill(outbox, down.url, range(lanes // 2, lanes), events)
        loopback = Targets([ipaddress.ip_network("127.0.0.0/8")])
        async with Delivery(outbox, lambda _: (SECRET,), loopback):
            delivered = [await _new_call(outbox, receiver, number) for number in range(NEW_CALLS)]
            began = time.perf_counter()
            pending = (await outbox.stats()).pending
            stats = 1000 * (time.perf_counter() - began)
        claims = sorted([await _claim(outbox, {down.url: 0}) for _ in range(LOOKS)])
    assert pending >= lanes * events, f"{lanes * events - pending} of the events did not wait"
    return Figures(engine, pending, percentile(claims, 99), stats, max(delivered))


async def _fill(outbox: Outbox, endpoint: str, numbers: range, events: int) -> None:
    for first in range(numbers.start, numbers.stop, 50):
        batch = range(first, min(first + 50, numbers.stop))
        callers = await asyncio.gather(*(Caller.of(outbox, endpoint, f"CA{n}") for n in batch))
        await asyncio.gather(*(caller.publish(events) for caller in callers))


async def _new_call(outbox: Outbox, receiver: Receiver, number: int) -> float:
    caller = await Caller.of(outbox, receiver.url, f"CAnew{number}")
    await caller.publish()
    ((identity, at),) = caller.committed.items()
    one = await receiver.wait_for(lambda one: one.webhook_id == identity)
    return 1000 * (one.received_at - at)


async def _claim(outbox: Outbox, room: dict[str, int]) -> float:
    began = time.perf_counter()
    assert not await outbox.claim("backlog", 64, 15.0, room=room)
    return 1000 * (time.perf_counter() - began)
