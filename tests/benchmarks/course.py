"""One course of the benchmark: so many calls at once through one system, and the figures that come of it."""

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

import aiohttp
import numpy as np
from numpy.typing import NDArray

from bridge.errors import BridgeError
from bridge.local.twilio.account import Account
from bridge.local.twilio.address import Address
from bridge.local.twilio.webhook import Webhooks
from tests.benchmarks import tag
from tests.benchmarks.child import Child
from tests.benchmarks.load import PERIOD_S, LoadCall

FRAME: Final = 256
"""Samples at 8 kHz of one Whisper frame."""

LEAD_S: Final = 0.2
"""A call is opened so long before its first media message is due."""

SETTLE_S: Final = 0.3
"""What is measured begins so long after the last call's first message."""

LATE_MS: Final = 5.0
"""A load generator whose 99th percentile is later than this does not measure what it says."""

TAIL_CHUNKS: Final = 2
"""Chunks of silence that a bridge may add at the end of a track."""

_numbers = count()

Noted = Mapping[int, list[list[float]]]
"""Track number -> for each of its sockets, when each chunk came at Whisper."""


@dataclass(frozen=True, slots=True)
class System:
    """What is measured: a process that takes calls and forwards them to `sink`."""

    name: str
    child: Child
    sink: Child
    account: Account
    public_url: str
    """What it calls itself, and what requests to it are signed for."""


@dataclass(slots=True)
class Course:
    """What was measured, and the calls it was measured with. All times in seconds, the clock is monotonic."""

    system: str
    calls: list[LoadCall]
    since: float
    until: float
    load_average: float
    """Of the machine, over the minute before."""
    cpu_s: float = 0.0
    driver_cpu_s: float = 0.0
    """Of the load and the sink together, while `cpu_s` was used."""
    rss_kb: int = 0
    """Growth since before the first call."""
    anonymous_kb: int = 0
    """The part of it that is not the journals' pages."""

    def figures(self, noted: Noted) -> dict[str, Any]:
        """The results, for people and programs. Raises `BridgeError` when audio was lost or cannot be matched."""
        delays = np.concatenate([self._delays(call, noted) for call in self.calls])
        late = np.concatenate([self._late(call) for call in self.calls])
        seconds = self.until - self.since
        lateness = _spread(late)
        return {
            "system": self.system,
            "calls": len(self.calls),
            "seconds": round(seconds, 3),
            "chunks": len(delays),
            "delay_ms": _spread(delays),
            "cpu_ms_per_call_minute": round(self.cpu_s * 1000 * 60 / seconds / len(self.calls), 2),
            "rss_kb_per_call": round(self.rss_kb / len(self.calls), 1),
            "anonymous_kb_per_call": round(self.anonymous_kb / len(self.calls), 1),
            "load_late_ms": lateness,
            "load_is_late": lateness["p99"] > LATE_MS,
            "driver_cpu_percent": round(100 * self.driver_cpu_s / seconds, 1),
            "load_average": round(self.load_average, 2),
        }

    def _delays(self, call: LoadCall, noted: Noted) -> NDArray[np.float64]:
        """From the message that completes a chunk to the chunk, for chunks that were complete in this time."""
        delays = []
        for track, number in call.numbers.items():
            sent, sockets = np.array(call.sent[track]), noted.get(number, [])
            chunks = len(sent) * tag.MESSAGE // FRAME
            if len(sockets) != 1 or not chunks <= len(sockets[0]) <= chunks + TAIL_CHUNKS:
                raise BridgeError(
                    f"{self.system}: a track of {chunks} chunks came as {[len(came) for came in sockets]} chunks on "
                    f"{len(sockets)} sockets; audio was lost, or the machine was too busy to measure on."
                )
            # Chunk k is whole with message ceil((k + 1) * 256 / 160), counted from 1.
            whole = sent[-(np.arange(1, chunks + 1) * -FRAME // tag.MESSAGE) - 1]
            steady = (whole >= self.since) & (whole < self.until)
            delays.append((np.array(sockets[0][:chunks]) - whole)[steady])
        return np.concatenate(delays)

    def _late(self, call: LoadCall) -> NDArray[np.float64]:
        """How far behind its schedule each 20 ms of a call were sent, in this time."""
        due = np.array(call.due)
        late = np.array(next(iter(call.sent.values()))) - due
        steady: NDArray[np.float64] = late[(due >= self.since) & (due < self.until)]
        return steady


async def run(system: System, session: aiohttp.ClientSession, calls: int, seconds: float) -> Course:
    """Make calls that begin one after the other and talk together for `seconds`. Raises `BridgeError`."""
    rss, anonymous = system.child.memory_kb
    load_average = os.getloadavg()[0]
    callers = [
        LoadCall(system.account, {"inbound": next(_numbers), "outbound": next(_numbers)})
        for _ in range(calls)
    ]
    # Starts are 40 ms apart, plus what spreads the calls evenly over the 20 ms between two messages.
    begins = time.monotonic() + LEAD_S + np.arange(calls) * (2 + 1 / calls) * PERIOD_S
    since = float(begins[-1]) + SETTLE_S
    address = Address.of(f"http://127.0.0.1:{system.child.port}/", system.public_url)
    webhooks = Webhooks(session, system.account, address)
    course = Course(system.name, callers, since, since + seconds, load_average)

    async def call(caller: LoadCall, begin: float) -> None:
        await _sleep_until(begin - LEAD_S)
        await caller.run(webhooks, system.public_url + "/twilio/voice", begin, course.until)

    async def measure() -> None:
        await _sleep_until(course.since)
        since, cpu_s, driver_cpu_s = time.monotonic(), system.child.cpu_s, _driver_cpu_s(system)
        await _sleep_until(course.until)
        share = seconds / (time.monotonic() - since)  # of what was measured: a busy machine wakes us late
        course.cpu_s = (system.child.cpu_s - cpu_s) * share
        course.driver_cpu_s = (_driver_cpu_s(system) - driver_cpu_s) * share
        rss_now, anonymous_now = system.child.memory_kb
        course.rss_kb, course.anonymous_kb = rss_now - rss, anonymous_now - anonymous

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(measure())
            for caller, begin in zip(callers, begins.tolist(), strict=True):
                group.create_task(call(caller, begin))
    except* BridgeError as failed:
        raise _first(failed) from failed
    return course


def _driver_cpu_s(system: System) -> float:
    return time.process_time() + system.sink.cpu_s


def _first(failed: BaseExceptionGroup[BridgeError]) -> BridgeError:
    first = failed.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _sleep_until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _spread(seconds: NDArray[np.float64]) -> dict[str, float]:
    values = np.quantile(seconds, (0.5, 0.99, 1.0), method="inverted_cdf") * 1000
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "max"), values, strict=True)}
