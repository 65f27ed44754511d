"""Healthy calls beside a call whose event is always refused, and beside an endpoint that never answers.

The same course of publishes is run without the faults and with them, in turns: what the faults add to the
delay of the healthy calls' events is the figure. Each way the best round counts, as whatever else the machine
does only adds.
"""

import asyncio
import contextlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from bridge.local.receiver import Answer, Receiver
from bridge.webhook.delivery import Delivery
from bridge.webhook.target import Targets
from tests.chaos.caller import Caller, acknowledged, delays_ms, percentile
from tests.chaos.engines import ENGINES, Engine, opened
from tests.chaos.history import check
from tests.chaos.scenario import Lacking
from tests.chaos.worker import SECRET

ENDPOINTS: Final = 4
"""The last of them is the dead one."""

LATEST_S: Final = 30.0
"""For the last healthy event."""


@dataclass(frozen=True, slots=True)
class Figures:
    """The healthy calls' p99 in the best round, in milliseconds, and how many events it is of."""

    engine: Engine
    events: int
    without: float
    with_faults: float

    @property
    def added(self) -> float:
        """By the faults."""
        return self.with_faults - self.without

    def __str__(self) -> str:
        return (
            f"{self.engine}: p99 of {self.events} healthy events {self.without:.1f} ms, "
            f"{self.with_faults:.1f} ms beside the faults ({self.added:+.1f})"
        )


async def run(
    directory: Path,
    *,
    lanes: int = 200,
    events: int = 3,
    seconds: float = 9.0,
    rounds: int = 3,
    engines: Sequence[Engine] = ENGINES,
    most_added_ms: float = 10.0,
) -> str:
    """Publish `events` in each of `lanes` calls within `seconds`, twice in each round."""
    lines = []
    for engine in engines:
        try:
            figures = await _measured(engine, directory, lanes, events, seconds, rounds=rounds)
        except Lacking as lacking:
            lines.append(f"{engine}: {lacking}")
            continue
        assert figures.added <= most_added_ms, f"{figures}, and {most_added_ms:.0f} ms is the most"
        lines.append(str(figures))
    return "; ".join(lines)


async def _measured(
    engine: Engine, directory: Path, lanes: int, events: int, seconds: float, *, rounds: int
) -> Figures:
    course = partial(_p99, engine, lanes=lanes, events=events, seconds=seconds)
    without, beside = [], []
    for number in range(rounds):
        without.append(await course(directory / f"{engine}-{number}-well", faults=False))
        beside.append(await course(directory / f"{engine}-{number}-faults", faults=True))
    p99, count = min(without)
    return Figures(engine, count, p99, min(beside)[0])


async def _p99(
    engine: Engine, directory: Path, *, lanes: int, events: int, seconds: float, faults: bool
) -> tuple[float, int]:
    async with contextlib.AsyncExitStack() as stack:
        outbox = await stack.enter_async_context(opened(engine, directory))
        receivers = [await stack.enter_async_context(Receiver(SECRET)) for _ in range(ENDPOINTS)]
        callers = [await Caller.of(outbox, receivers[n % ENDPOINTS].url, f"CA{n}") for n in range(lanes)]
        if faults:
            receivers[-1].default = Answer(manner="hang")
            receivers[0].script(*[Answer(500)] * 1000, call_sid="CA0")
        # The same calls are looked at in both runs. CA0 is the poisoned one.
        healthy = [callers[n::ENDPOINTS][n == 0 :] for n in range(ENDPOINTS - 1)]
        loopback = Targets([ipaddress.ip_network("127.0.0.0/8")])
        async with Delivery(outbox, lambda _: (SECRET,), loopback):
            async with asyncio.TaskGroup() as publishing:
                for number, caller in enumerate(callers):
                    publishing.create_task(caller.spread(events, seconds, Random(number)))
            for receiver, of_it in zip(receivers, healthy, strict=False):
                await _all(receiver, {identity for caller in of_it for identity in caller.committed})
    delays: list[float] = []
    for receiver, of_it in zip(receivers, healthy, strict=False):
        received = [one for one in receiver.received if one.call_sid != "CA0"]
        check(acknowledged(of_it), received).require()
        delays += delays_ms(of_it, received)
    if faults:
        assert receivers[-1].received, "the dead endpoint was tried"
        poisoned = [one.data["sequence"] for one in receivers[0].received if one.call_sid == "CA0"]
        assert set(poisoned) == {1}, f"the refused call's next event was tried: {poisoned}"
    delays.sort()
    return percentile(delays, 99), len(delays)


async def _all(receiver: Receiver, expected: set[str]) -> None:
    def arrived(_: object) -> bool:
        return expected <= {one.webhook_id for one in receiver.received}

    if expected:
        await receiver.wait_for(arrived, LATEST_S)
