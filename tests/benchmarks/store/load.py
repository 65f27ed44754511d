"""One process of bridges: publishes finals at times that are fixed beforehand, and delivers whatever waits.

Store and delivery are the bridge's own. Its POSTs are not made: each is taken for accepted at once, so that the
store is measured and not a receiver. All times are seconds of the monotonic clock, which all processes share.
"""

import asyncio
import gc
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from bridge import events, log, loop
from bridge.errors import BridgeError
from bridge.outbox.lease import CallLease
from bridge.outbox.outbox import Line, Outbox, Outgoing
from bridge.outbox.postgresql.postgres import Postgres
from bridge.outbox.sqlite import Sqlite
from bridge.webhook.delivery import Delivery
from bridge.webhook.sender import Outcome
from bridge.webhook.target import Targets
from tests.benchmarks.store import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BEAT_S: Final = 2.0
"""As `bridge.call.reaper` does."""

STATS_S: Final = 5.0
"""As Prometheus asks, at most: `bridge.webhook.delivery.MEASURE_S`."""

REST_S: Final = 0.5
"""What is used while connections end belongs to no measurement."""

DRAIN_S: Final = 10.0
"""How long what is left may take in the end."""

OVERDUE: Final = 3000
"""Publishes that may be under way: beyond it the store is behind, and no more are begun."""


@dataclass(frozen=True, slots=True)
class Order:
    """What one process is to do."""

    store: str
    """A URL of PostgreSQL, or a directory of SQLite's."""
    node: str
    numbers: range
    """Its calls. Each says something in turn."""
    finals_s: float
    """How many are published in a second."""
    begin: float
    seconds: float
    warm_s: float
    """So long before that the calls begin to speak: connections are open then, and statements are planned."""
    silent: bool = False
    """Nothing is said: only watermarks move."""


class Used(NamedTuple):
    """What a process has used up to some moment."""

    cpu_s: float = 0.0
    """Without its store's thread."""
    store_cpu_s: float = 0.0
    """Of that: SQLite has one."""
    written: int = 0
    """Bytes that went to a disk."""

    def since(self, before: "Used") -> "Used":
        """What was used after an earlier moment."""
        return Used(
            self.cpu_s - before.cpu_s, self.store_cpu_s - before.store_cpu_s, self.written - before.written
        )


@dataclass(slots=True)
class Carried:
    """What was measured in one process."""

    used: Used = field(default_factory=Used)
    published: list[float] = field(default_factory=list)
    """How long each publish took from the time it was due."""
    committed: dict[str, float] = field(default_factory=dict)
    """Event -> when its publish returned."""
    claimed: dict[str, float] = field(default_factory=dict)
    """Event -> when its lane was leased to this process."""
    posted: dict[str, float] = field(default_factory=dict)
    """Event -> when its POST would have been made."""
    operations: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Name of a method of the store -> how long each use of it took that began in this time."""
    skipped: int = 0
    """Finals that were due while too many waited."""
    trouble: str = ""
    """The first thing that went wrong."""


class Timed:
    """An outbox that says how long its answers take, and when each event's lane was claimed."""

    def __init__(self, outbox: Outbox, order: Order, carried: Carried) -> None:
        self._outbox = outbox
        self._order = order
        self._carried = carried
        self._lanes: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._outbox, name)
        if not callable(asked):
            return asked
        took = self._carried.operations[name]

        async def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.monotonic()
            answer = await asked(*args, **kwargs)
            now = time.monotonic()
            if self._order.begin <= began < self._order.begin + self._order.seconds:
                took.append(now - began)
            if name == "publish":  # it may have leased what it stored
                for _, event in zip(answer or (), args[1], strict=False):
                    self._carried.claimed[event.event_id] = now
            elif name == "claim":
                self._lanes.update(dict.fromkeys((lease.lane for lease in answer), now))
            elif name == "peek":
                for stored in answer:
                    self._carried.claimed.setdefault(stored.event_id, self._lanes[stored.lane])
            return answer

        return timed


class Accepting:
    """In place of a `Sender`: every POST is answered at once."""

    def __init__(self, carried: Carried) -> None:
        self._carried = carried

    async def start(self) -> None:
        """Nothing is opened."""

    async def close(self) -> None:
        """Nothing is open."""

    async def post(self, endpoint: str, event_id: str, _body: bytes, **_: Any) -> Outcome:
        """Say that it was accepted, if not by the endpoint that is down."""
        if endpoint == rows.DEAD:
            return Outcome(503, "status 503")
        self._carried.posted.setdefault(event_id, time.monotonic())
        return Outcome(200)


class Speaker:
    """One call that says something now and then."""

    def __init__(self, publish: Callable[..., Awaitable[Any]], number: int) -> None:
        self._publish = publish
        self._number = number
        self._endpoint = rows.endpoint(number)
        self._lease = CallLease(rows.call_sid(number), "bridge", 1, rows.BEGUN, {}, ended=False)
        self._sequence = rows.BEGUN
        self._turn = asyncio.Lock()

    async def say(self) -> str:
        """Publish the next final, with the watermarks that it moves and its line; the id of the event."""
        async with self._turn:
            sequence = self._sequence
            body = rows.final(self._number, sequence)
            identity = events.event_id(self._lease.call_sid, self._endpoint, sequence, rows.FINAL)
            end_ms = 5000 * sequence + 4000
            await self._publish(
                self._lease,
                [Outgoing(self._endpoint, sequence, identity, rows.FINAL, body)],
                rows.marks(8 * end_ms),
                lines=[Line(sequence, "inbound", end_ms - 4000, end_ms, rows.TEXT)],
            )
            self._sequence += 1
            return identity

    async def settle(self) -> str:
        """Move watermarks over audio of which nothing is told."""
        async with self._turn:
            self._sequence += 1
            await self._publish(self._lease, (), rows.marks(40_000 * self._sequence))
            return ""


def carry(order: Order) -> Carried:
    """Do what is ordered, in this process."""
    log.configure(logging.CRITICAL)
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        return runner.run(_carry(order))


async def _carry(order: Order) -> Carried:
    carried = Carried()
    async with opened(order.store) as outbox:
        timed = cast("Outbox", Timed(outbox, order, carried))
        delivery = Delivery(timed, lambda _: (), Targets([]), owner=order.node)
        delivery._means = replace(delivery._means, sender=cast("Any", Accepting(carried)))
        speakers = [Speaker(delivery.publish, number) for number in order.numbers]
        async with delivery:
            beside = [
                asyncio.create_task(_repeat(lambda: timed.beat(order.node), BEAT_S)),
                asyncio.create_task(_repeat(delivery.measure, STATS_S)),
            ]
            await _publish(order, speakers, carried)
            await _drain(outbox)
            for task in beside:
                task.cancel()
            for ended in await asyncio.gather(*beside, return_exceptions=True):
                if isinstance(ended, Exception):
                    carried.trouble = carried.trouble or repr(ended)
    carried.operations = dict(carried.operations)
    return carried


@asynccontextmanager
async def opened(store: str) -> "AsyncIterator[Outbox]":
    """The bridge's own store at a URL or in a directory."""
    outbox: Outbox = Postgres(store) if "://" in store else Sqlite(Path(store))
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


async def _publish(order: Order, speakers: list[Speaker], carried: Carried) -> None:
    """Have the calls speak in turn, at random times as strangers do; what is late is begun at once."""
    random = Random(order.node)
    turns = cycle(speakers)
    saying: set[asyncio.Task[None]] = set()
    gc.collect()
    gc.freeze()
    before = asyncio.create_task(_used_at(order.begin))
    due = order.begin - order.warm_s
    while (due := due + random.expovariate(order.finals_s)) < order.begin + order.seconds:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        speaker = next(turns)
        if len(saying) < OVERDUE:
            say = speaker.settle if order.silent else speaker.say
            task = asyncio.create_task(_say(say, due, order.begin, carried))
            saying.add(task)
            task.add_done_callback(saying.discard)
        elif due >= order.begin:
            carried.skipped += 1
    after, used = await _used_at(order.begin + order.seconds), await before
    carried.used = after.since(used)
    await asyncio.gather(*saying)


async def _say(say: Callable[[], Awaitable[str]], due: float, begin: float, carried: Carried) -> None:
    try:
        identity = await say()
    except BridgeError as error:
        carried.trouble = carried.trouble or str(error)
        return
    now = time.monotonic()
    if due >= begin:
        carried.published.append(now - due)
        carried.committed[identity] = now


async def _drain(outbox: Outbox) -> None:
    """Wait until the endpoints that answer have everything, and what was used has been asked for."""
    await asyncio.sleep(REST_S)
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while await outbox.next_due(without=[rows.DEAD]) is not None:
                await asyncio.sleep(0.1)


async def _repeat(ask: Callable[[], Awaitable[Any]], every_s: float) -> None:
    while True:
        with suppress(BridgeError):
            await ask()
        await asyncio.sleep(every_s)


async def _used_at(moment: float) -> Used:
    await asyncio.sleep(moment - time.monotonic())
    return _used()


def _used() -> Used:
    """What this process has used up to now."""
    store_cpu_s = sum(
        time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        for thread in threading.enumerate()
        if thread.name == "outbox" and thread.ident is not None
    )
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return Used(time.process_time() - store_cpu_s, store_cpu_s, int(told["write_bytes"]))
