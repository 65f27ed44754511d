"""PostgreSQL fails under its bridges: unreachable primary, lagging standby, and a primary that dies, twice.

A commit waits for the synchronous standby, so what a publish acknowledged is on both. All bridges know the
addresses of both servers, and go on by themselves. Each time the primary is killed, the standby is promoted
after the time that somebody needs to notice it, and a new standby takes the place of the dead server. Every
second time the standby is frozen before that, for longer than a statement may take, and a bridge dies with the
primary: what was published meanwhile is not acknowledged, or is there after the failover all the same.
"""

import asyncio
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bridge.local.receiver import Answer, Receiver
from tests.chaos.history import History, check
from tests.chaos.scenario import Lacking
from tests.chaos.worker import SECRET, Spec
from tests.chaos.workers import Worker, Workers
from tests.doubles import postgres
from tests.doubles.postgres import PostgresServer, several_hosts

CALLS: Final = 8
"""Of each worker."""

LEASE_S: Final = 2.0
FROZEN_S: Final = 4.0
"""Longer than the 3 s that a statement may take."""

DRAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Outage:
    """When nothing could be committed. Times in seconds since 1970."""

    what: str
    began: float
    ended: float
    stall_s: float = 0.0
    """The longest publish of that time, all its attempts together."""

    @property
    def took_s(self) -> float:
        """How long nothing could be committed."""
        return self.ended - self.began

    def __str__(self) -> str:
        return f"{self.what} for {self.took_s:.2f} s (longest publish {self.stall_s:.2f} s)"


@dataclass(slots=True)
class Figures:
    """What happened."""

    outages: list[Outage] = field(default_factory=list)
    history: History = field(default_factory=History)

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.outages))}, {self.history}"


async def run(
    directory: Path,
    *,
    failovers: int = 2,
    workers: int = 2,
    calm_s: float = 3.0,
    unreachable_s: float = 10.0,
    notice_s: float = 1.0,
    late_s: float = 1.0,
) -> Figures:
    """Fail over under load.

    A dead primary is noticed after `notice_s`; a publish may take `late_s` longer than nothing can be committed.
    """
    if not postgres.installed():
        raise Lacking(postgres.MISSING)
    receiver = Receiver(SECRET)
    receiver.default = Answer(delay_s=0.01)
    async with receiver, Workers(directory) as started, AsyncExitStack() as servers:
        primary = await servers.enter_async_context(PostgresServer())
        standby = await primary.standby()
        servers.push_async_callback(standby.remove)
        url = several_hosts([primary, standby])
        fleet = [await started.start(_spec(url, receiver, number)) for number in range(workers)]
        for worker in fleet:
            await started.until(worker, "owns", CALLS)
        await asyncio.sleep(calm_s)
        outages = [await _unreachable(primary, unreachable_s)]
        for number in range(failovers):
            await asyncio.sleep(calm_s)
            if number % 2 == 0:
                outages.append(await _failover(primary, standby, notice_s))
            else:
                outages.append(await _worse_failover(primary, standby, notice_s, started, fleet[0]))
                fleet[0] = await started.start(replace(fleet[0].spec, seed=workers + number))
            await primary.remove()
            primary, port = standby, primary.port
            if number + 1 < failovers:
                standby = await primary.standby(port)
                servers.push_async_callback(standby.remove)
        await asyncio.sleep(calm_s)
        await started.drain(*fleet, timeout=DRAIN_S)
        rows = await primary.query("select event_id from whisper_bridge.events")
    started.require()
    figures = Figures([_stalled(outage, started) for outage in outages])
    figures.history = check(started.acknowledged(), receiver.received)
    figures.history.require()
    _require_stored(started, {row["event_id"] for row in rows})
    for outage in figures.outages[1:]:
        assert outage.stall_s <= outage.took_s + late_s, f"publishes went on late: {figures}"
    return figures


def _spec(url: str, receiver: Receiver, number: int) -> Spec:
    calls = [f"CA{number}-{call}" for call in range(CALLS)]
    return Spec(store=url, endpoint=receiver.url, calls=calls, seed=number, lease_s=LEASE_S)


async def _unreachable(primary: PostgresServer, seconds: float) -> Outage:
    """The primary answers nothing, and drops no connection."""
    began = time.time()
    await primary.freeze()
    await asyncio.sleep(seconds)
    await primary.thaw()
    return Outage("primary unreachable", began, time.time())


async def _failover(primary: PostgresServer, standby: PostgresServer, notice_s: float) -> Outage:
    """The primary dies, the standby is promoted."""
    began = time.time()
    await primary.kill()
    await asyncio.sleep(notice_s)
    await standby.promote()
    return Outage("primary killed", began, time.time())


async def _worse_failover(
    primary: PostgresServer, standby: PostgresServer, notice_s: float, started: Workers, worker: Worker
) -> Outage:
    """The standby does not keep up, and then the primary dies together with a bridge that waits for it."""
    began = time.time()
    await standby.freeze()
    await asyncio.sleep(FROZEN_S)
    await asyncio.gather(primary.kill(), started.kill(worker))
    await standby.thaw()
    await asyncio.sleep(notice_s)
    await standby.promote()
    return Outage("standby frozen, then primary and a bridge killed", began, time.time())


def _stalled(outage: Outage, started: Workers) -> Outage:
    stalls = (
        ended - began
        for began, ended in started.told("published")
        if began <= outage.ended and ended >= outage.began
    )
    return replace(outage, stall_s=max(stalls))


def _require_stored(started: Workers, stored: Collection[str]) -> None:
    """What was acknowledged must also be in the database, and not only have been delivered from it."""
    missing = [event for event in started.acknowledged() if event.event_id not in stored]
    assert not missing, f"{len(missing)} acknowledged events are not in the database, {missing[0]} first"
