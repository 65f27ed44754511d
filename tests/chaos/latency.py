"""How long a stored event takes to its receiver when all is well, on either outbox.

From the return of `publish`, so after the commit, to the request at the receiver: what the pump, the claim,
the signature and the connection add. Of several rounds the best one counts, as whatever else the machine does
only adds.
"""

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bridge.local.receiver import Receiver
from bridge.webhook.delivery import Delivery
from bridge.webhook.target import Targets
from tests.chaos.caller import Caller, acknowledged, delays_ms, percentile
from tests.chaos.engines import ENGINES, Engine, opened
from tests.chaos.history import check
from tests.chaos.scenario import Lacking
from tests.chaos.worker import SECRET

LOOPBACK = Targets([ipaddress.ip_network("127.0.0.0/8")])


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one outbox, in milliseconds."""

    engine: Engine
    events: int
    median: float
    p99: float

    def __str__(self) -> str:
        return f"{self.engine}: {self.events} events, p50 {self.median:.1f} ms, p99 {self.p99:.1f} ms"


async def run(
    directory: Path,
    *,
    calls: int = 20,
    events: int = 20,
    seconds: float = 8.0,
    rounds: int = 3,
    engines: Sequence[Engine] = ENGINES,
    most_ms: float = 30.0,
) -> str:
    """Publish `events` in each of `calls` calls within `seconds`; the p99 may be `most_ms`."""
    lines = []
    for engine in engines:
        try:
            measured = [
                await _measured(engine, directory / f"{engine}-{number}", calls, events, seconds)
                for number in range(rounds)
            ]
        except Lacking as lacking:
            lines.append(f"{engine}: {lacking}")
            continue
        figures = min(measured, key=lambda one: one.p99)
        assert figures.p99 <= most_ms, f"{figures}, and {most_ms:.0f} ms is the most"
        lines.append(str(figures))
    return "; ".join(lines)


async def _measured(engine: Engine, directory: Path, calls: int, events: int, seconds: float) -> Figures:
    async with opened(engine, directory) as outbox, Receiver(SECRET) as receiver:
        callers = [await Caller.of(outbox, receiver.url, f"CA{n}") for n in range(calls)]
        async with Delivery(outbox, lambda _: (SECRET,), LOOPBACK), asyncio.TaskGroup() as publishing:
            for number, caller in enumerate(callers):
                publishing.create_task(caller.spread(events, seconds, Random(number)))
            last = len(callers) * events
            publishing.create_task(receiver.wait_for(lambda _: len(receiver.received) >= last, seconds + 30))
    check(acknowledged(callers), receiver.received).require()
    delays = delays_ms(callers, receiver.received)
    return Figures(engine, len(delays), percentile(delays, 50), percentile(delays, 99))
