"""One store under more and more finals, and what it answers how quickly meanwhile."""

import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final, Self

from bridge.call.reaper import AT_ONCE
from bridge.call.recovery import SILENT_S
from bridge.outbox.outbox import Outbox
from bridge.webhook.delivery import CLAIM
from bridge.webhook.lane import LEASE_S
from tests.benchmarks.store import rows
from tests.benchmarks.store.bed import Bed
from tests.benchmarks.store.level import figures, spread_ms
from tests.benchmarks.store.load import Order, carry, opened

APART_S: Final = 5
"""From one final of a call to its next: 12 a minute, as two people have who let each other finish."""

WARM_S: Final = 2.0
"""How long a level runs before it is measured."""

READY_S: Final = 0.5
"""What the processes have to open their store, before the calls begin to speak."""

LOOKS: Final = 40
"""How often each thing is asked."""

BITE: Final = 500
"""Events that are removed in one go, as `bridge.outbox.retention` does."""

PURGES: Final = 10
YEAR_S: Final = 365 * 86_400.0

PART: Final = 10_000
"""Calls that are written at once."""


class Climb:
    """`async with Climb(bed, processes=2, share=600, seconds=8) as climb`; `fill` comes first.

    `share` is how many calls each node has.
    """

    def __init__(
        self, bed: Bed, *, processes: int, share: int, seconds: float, warm_s: float = WARM_S
    ) -> None:
        self._bed = bed
        self._count = processes
        self._share = share
        self._seconds = seconds
        self._warm_s = warm_s
        self._calls = 0
        self._spoken = 0  # of these calls: each speaks in one level only
        self._processes = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))

    async def __aenter__(self) -> Self:
        # A process is started for each thing to do that comes while none is idle.
        starting = [self._processes.submit(time.sleep, 1.0) for _ in range(self._count)]
        await asyncio.gather(*map(asyncio.wrap_future, starting))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._processes.shutdown(cancel_futures=True)

    async def fill(self, calls: int, finals_s: Sequence[int]) -> int:
        """Have so many calls alive, or as many as have something to say at these rates; how many."""
        self._calls = max(calls, APART_S * (sum(finals_s) + 2 * max(finals_s)))
        for part in _parts(range(self._calls)):
            await self._bed.fill(rows.alive(part, self._share, time.time()))
        await self._bed.settle()
        return self._calls

    async def block(self, lanes: int) -> None:
        """Have so many lanes wait for an endpoint that is down."""
        for part in _parts(range(self._calls, self._calls + lanes)):
            await self._bed.fill(rows.dead(part, time.time()))
        await self._bed.settle()

    async def look(self) -> dict[str, Any]:
        """Ask, one by one, what bridges ask again and again."""
        async with opened(self._bed.store) as outbox:
            nodes = [rows.node(number, self._share) for number in range(0, self._calls, self._share)]
            for node in nodes:
                await outbox.beat(node)
            asked: dict[str, Callable[[], Awaitable[Any]]] = {
                "orphans": lambda: outbox.orphans(SILENT_S, AT_ONCE),
                "beat": lambda: outbox.beat(nodes[0]),
                # All but that one count as silent now.
                "orphans_of_others": lambda: outbox.orphans(0.0, AT_ONCE),
                "claim_of_none": lambda: outbox.claim("look", CLAIM, LEASE_S, room={rows.DEAD: 0}),
                "next_due": lambda: outbox.next_due(without=[rows.DEAD]),
                "stats": outbox.stats,
            }
            looked = {name: await self._look(ask) for name, ask in asked.items()}
            claims = [await _claim(outbox) for _ in range(LOOKS)]
            return looked | {"claim": spread_ms(claims)}

    async def purge(self) -> dict[str, Any]:
        """Remove what is past its time, in bites of 500: bodies that were delivered, and whole calls. Comes last."""
        async with opened(self._bed.store) as outbox:
            asked: dict[str, Callable[[], Awaitable[Any]]] = {
                "bodies": lambda: outbox.purge(body_age_s=0, call_age_s=YEAR_S, limit=BITE),
                "calls": lambda: outbox.purge(body_age_s=YEAR_S, call_age_s=0, limit=BITE),
            }
            return {name: await self._look(ask, PURGES) for name, ask in asked.items()}

    async def _look(self, ask: Callable[[], Awaitable[Any]], times: int = LOOKS) -> dict[str, float]:
        took = []
        before = await self._bed.spent()
        for _ in range(times):
            began = time.monotonic()
            await ask()
            took.append(time.monotonic() - began)
        cpu_s = (await self._bed.spent()).since(before).cpu_s
        return {**spread_ms(took), "store_cpu_ms": round(1000 * cpu_s / times, 2)}

    async def level(self, finals_s: int, *, silent: bool = False) -> dict[str, Any]:
        """Publish so many finals a second, each call one every `APART_S`. `silent`: only watermarks move."""
        share = -(-APART_S * finals_s // self._count)
        begin = time.monotonic() + READY_S + self._warm_s
        orders = [
            Order(
                store=self._bed.store,
                node=f"load{place}",
                numbers=range(self._spoken + place * share, self._spoken + (place + 1) * share),
                finals_s=finals_s / self._count,
                begin=begin,
                seconds=self._seconds,
                warm_s=self._warm_s,
                silent=silent,
            )
            for place in range(self._count)
        ]
        self._spoken += self._count * share
        in_process = asyncio.get_running_loop().run_in_executor
        carrying = [in_process(self._processes, carry, order) for order in orders]
        await asyncio.sleep(begin - time.monotonic())
        sizes, before = await self._bed.sizes(), await self._bed.spent()
        await asyncio.sleep(begin + self._seconds - time.monotonic())
        after, grown = await self._bed.spent(), await self._bed.sizes()
        return figures(
            await asyncio.gather(*carrying),
            after.since(before),
            {table: grown[table] - size for table, size in sizes.items()},
            finals_s=finals_s,
            seconds=self._seconds,
        )


async def _claim(outbox: Outbox) -> float:
    """How long it takes to claim whatever is due, which is given back."""
    began = time.monotonic()
    leases = await outbox.claim("look", CLAIM, LEASE_S)
    took = time.monotonic() - began
    await asyncio.gather(*(outbox.release(lease) for lease in leases))
    return took


def _parts(numbers: range) -> Iterator[range]:
    for first in range(numbers.start, numbers.stop, PART):
        yield range(first, min(first + PART, numbers.stop))
