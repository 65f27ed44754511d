"""The receiver is away, with hundreds of calls that go on publishing, and comes back.

It is away in three ways: nobody listens, it takes requests and never answers, or it answers 503. Meanwhile it
must be left in peace, afterwards it must get everything soon, and never all of it at once.
"""

import asyncio
import ipaddress
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Literal

from prometheus_client import REGISTRY

from bridge.local.receiver import Answer, Received, Receiver
from bridge.outbox.outbox import Outbox
from bridge.webhook.delivery import Delivery
from bridge.webhook.target import Targets
from tests.chaos.caller import Caller, acknowledged
from tests.chaos.engines import Engine, opened
from tests.chaos.history import check
from tests.chaos.port import free_port
from tests.chaos.worker import SECRET

Manner = Literal["refuses", "hangs", "503"]
MANNERS: Final[tuple[Manner, ...]] = ("refuses", "hangs", "503")

BEFORE_S: Final = 2.0
"""All is well for so long."""

WELL: Final = Answer(delay_s=0.02)
"""A receiver that stores what it gets."""

LATEST_S: Final = 120.0
LOOK_S: Final = 0.05


@dataclass(slots=True)
class Figures:
    """Of one outage."""

    manner: Manner
    posts: int = 0
    """While it was away."""
    drained_s: float = 0.0
    """After it was back."""
    most: int = 0
    """POSTs under way at a time."""

    def __str__(self) -> str:
        return f"{self.manner}: {self.posts} POSTs, drained in {self.drained_s:.1f} s, {self.most} at a time"


async def run(
    directory: Path,
    *,
    lanes: int = 500,
    events: int = 4,
    away_s: float = 30.0,
    manners: Sequence[Manner] = MANNERS,
    engine: Engine = "sqlite",
    most_posts: int = 60,
    most_s: float = 20.0,
    most_at_a_time: int = 100,
) -> str:
    """Let each of `lanes` calls publish one event before, and `events` while the receiver is away."""
    lines = [f"away for {away_s:.0f} s, {lanes} lanes"]
    for manner in manners:
        figures = await _outage(engine, directory, manner, lanes=lanes, events=events, away_s=away_s)
        assert figures.posts <= most_posts, f"{figures}; {most_posts} POSTs is the most"
        assert figures.drained_s <= most_s, f"{figures}; {most_s:.0f} s is the longest"
        assert figures.most <= most_at_a_time, f"{figures}; {most_at_a_time} at a time is the most"
        lines.append(str(figures))
    return "; ".join(lines)


async def _outage(
    engine: Engine, directory: Path, manner: Manner, *, lanes: int, events: int, away_s: float
) -> Figures:
    figures = Figures(manner)

    def arrived(_: Received) -> None:
        figures.most = max(figures.most, _under_way())

    receiver = Receiver(SECRET, port=free_port(), on_event=arrived)
    receiver.default = WELL
    await receiver.__aenter__()
    try:
        async with opened(engine, directory / manner) as outbox:
            callers = [await Caller.of(outbox, receiver.url, f"CA{n}") for n in range(lanes)]
            loopback = Targets([ipaddress.ip_network("127.0.0.0/8")])
            async with Delivery(outbox, lambda _: (SECRET,), loopback):
                await _publish(callers, 1, BEFORE_S)
                await _drained(outbox)
                before = _failed()
                await _go(receiver, manner)
                await _publish(callers, events, away_s)
                figures.posts = _failed() - before + _under_way()
                await _come_back(receiver, manner)
                figures.drained_s = await _drained(outbox)
    finally:
        await receiver.__aexit__()
    check(acknowledged(callers), receiver.received).require()
    return figures


def _failed() -> int:
    """POSTs of this process that came to nothing."""
    return int(REGISTRY.get_sample_value("bridge_webhook_deliveries_total", {"result": "failed"}) or 0)


def _under_way() -> int:
    """POSTs of this process that have not got their answer."""
    return int(REGISTRY.get_sample_value("bridge_webhook_posts_open") or 0)


async def _go(receiver: Receiver, manner: Manner) -> None:
    if manner == "refuses":
        await receiver.__aexit__()
    else:
        receiver.default = Answer(manner="hang") if manner == "hangs" else Answer(503)


async def _come_back(receiver: Receiver, manner: Manner) -> None:
    receiver.default = WELL
    if manner == "refuses":
        await receiver.__aenter__()


async def _publish(callers: Sequence[Caller], events: int, seconds: float) -> None:
    """Let each call publish `events`, all together within exactly `seconds`."""
    async with asyncio.TaskGroup() as publishing:
        publishing.create_task(asyncio.sleep(seconds))
        for number, caller in enumerate(callers):
            publishing.create_task(caller.spread(events, seconds, Random(number)))


async def _drained(outbox: Outbox) -> float:
    """Seconds until everything was delivered."""
    began = time.monotonic()
    async with asyncio.timeout(LATEST_S):
        while (await outbox.stats()).pending:
            await asyncio.sleep(LOOK_S)
    return time.monotonic() - began
