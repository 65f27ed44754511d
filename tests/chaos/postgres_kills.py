"""Many machines, one PostgreSQL: bridges are killed, and others pause longer than their leases last.

Every bridge publishes for its own calls, and delivers whatever is due. One is killed at a random time: another
takes its calls over, and its lanes go to whoever finds them when their leases end. One is stopped for longer
than its leases last, and goes on then, believing that they are its own; half of those find that their calls
were taken over as well. The receiver takes 60 ms for each event, so that lanes are always under way.
"""

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from bridge.local.receiver import Answer, Received, Receiver
from tests.chaos.history import History, check
from tests.chaos.scenario import Lacking
from tests.chaos.worker import SECRET, Spec
from tests.chaos.workers import Worker, Workers
from tests.doubles import postgres
from tests.doubles.postgres import PostgresServer

CALLS: Final = 8
"""Of each worker."""

LEASE_S: Final = 1.0
PAUSE_S: Final = 0.5
"""Longer than the leases: time enough for the others to find the lanes."""

LIFE_S: Final = 0.8
"""The longest time between two kills."""

DRAIN_S: Final = 60.0


@dataclass(slots=True)
class Figures:
    """What happened."""

    kills: int = 0
    pauses: int = 0
    fenced: int = 0
    """Lanes that a worker still believed to be its own."""
    refused: int = 0
    """Calls that a worker published for, although another one had taken them over."""
    recovery_s: list[float] = field(default_factory=list)
    """For each lane that a killed worker had leased, until somebody posted its next event."""
    history: History = field(default_factory=History)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills and {self.pauses} pauses of workers, {self.history}, "
            f"{self.fenced} lanes and {self.refused} calls fenced, {len(self.recovery_s)} leased lanes "
            f"recovered within {max(self.recovery_s, default=0):.2f} s"
        )


@dataclass(frozen=True, slots=True)
class Orphan:
    """A leased lane whose worker was hit. Times in seconds since 1970."""

    call_sid: str
    since: float
    seen: float
    """When it still had its lease."""


async def run(
    directory: Path,
    *,
    kills: int = 40,
    pauses: int = 10,
    workers: int = 3,
    recovery_s: float = LEASE_S + 1,
    seed: int = 1,
) -> Figures:
    """Kill and pause workers on one server. A killed one's lanes must go on within `recovery_s`."""
    if not postgres.installed():
        raise Lacking(postgres.MISSING)
    figures = Figures()
    random = Random(seed)
    receiver = Receiver(SECRET)
    receiver.default = Answer(delay_s=0.06)
    async with PostgresServer() as server, receiver, Workers(directory) as started:
        fleet = [await started.start(_spec(server, receiver, number)) for number in range(workers)]
        for worker in fleet:
            await started.until(worker, "owns", CALLS)
        orphans: list[Orphan] = []
        for number in range(kills):
            place = random.randrange(workers)
            await asyncio.sleep(random.uniform(0, LIFE_S))
            orphans += await _hit(started, fleet[place], signal.SIGKILL, server)
            fleet[place] = await started.start(replace(fleet[place].spec, seed=number))
            figures.kills += 1
            if figures.pauses < (number + 1) * pauses // kills:
                place = random.randrange(workers)
                worker = fleet[place]
                await started.until(worker, "owns", CALLS)
                orphans += await _hit(started, worker, signal.SIGSTOP, server)
                if taken_over := figures.pauses % 2 == 0:
                    fleet[place] = await started.start(replace(worker.spec, seed=number + kills))
                await asyncio.sleep(LEASE_S + PAUSE_S)
                started.signal(worker, signal.SIGCONT)
                if taken_over:
                    await started.until(worker, "fenced", CALLS)
                    await started.kill(worker)
                figures.pauses += 1
        await started.drain(*fleet, timeout=DRAIN_S)
    started.require()
    figures.fenced, figures.refused = started.logged()["lane_fenced"], len(list(started.told("fenced")))
    figures.history = check(started.acknowledged(), receiver.received)
    figures.history.require()
    figures.recovery_s = list(_recoveries_s(orphans, receiver.received))
    slowest_s = max(figures.recovery_s, default=0.0)
    assert slowest_s <= recovery_s, f"a dead worker's lane went on after {slowest_s:.2f} s: {figures}"
    assert figures.fenced or not pauses, f"no lane was fenced, so the pauses proved nothing: {figures}"
    return figures


def _spec(server: PostgresServer, receiver: Receiver, number: int) -> Spec:
    calls = [f"CA{number}-{call}" for call in range(CALLS)]
    return Spec(
        store=server.url, endpoint=receiver.url, calls=calls, seed=-number, lease_s=LEASE_S, pause_s=0.3
    )


async def _hit(
    started: Workers, worker: Worker, number: signal.Signals, server: PostgresServer
) -> list[Orphan]:
    """Kill or stop a worker; the lanes that it had leased."""
    began = time.time()
    if number == signal.SIGKILL:
        await started.kill(worker)
    else:
        started.signal(worker, number)
    rows = await server.query(
        "select call_sid from whisper_bridge.lanes where lease_by = $1 and head < next", str(worker.pid)
    )
    return [Orphan(row["call_sid"], began, time.time()) for row in rows]


def _recoveries_s(orphans: Sequence[Orphan], received: Sequence[Received]) -> Iterator[float]:
    """How long each lane waited, unless whoever found it was hit too before it did anything."""
    for orphan in orphans:
        posted = min(
            one.received_at
            for one in received
            if orphan.call_sid == one.call_sid and one.received_at > orphan.seen
        )
        if not any(
            other.call_sid == orphan.call_sid and orphan.since < other.since < posted for other in orphans
        ):
            yield posted - orphan.since
