"""A bridge of several workers loses them, one after the other, and in the end the process that leads them.

Its calls are spread evenly. Of a worker that is killed in mid-call they go on with its siblings: every word that was received
is told, a gap tells of the rest, and another worker takes its place, and calls. When the leading process is killed, all
are gone with it, the port is free, and the next one takes everything up.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bridge.call.clock import milliseconds
from bridge.call.track import JOIN
from bridge.local.deliveries import judge
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.script import FRAME_MS
from tests.chaos.cluster import TRACKS, Cluster, began_ms, said_ms
from tests.chaos.handover import CUT_MS, cuts_of
from tests.chaos.side import words_in
from tests.chaos.told import SLACK_MS, Span, Told

LIMIT_S: Final = 20.0
"""Within so long every call must be streamed again."""

REPLACED_S: Final = 30.0
"""And another worker must be ready, on a machine that is busy."""

GONE_S: Final = 2.0
"""Within so long the workers are gone whose leading process was killed."""

END_S: Final = 60.0


JOIN_MS: Final = milliseconds(JOIN)
"""So little between two streams counts as silence."""


@dataclass(slots=True)
class Figures:
    """What happened, and what became of it."""

    mode: str
    workers: int
    kills: int = 0
    attached: int = 0
    """Calls that were streamed again, over all losses."""
    longest_s: float = 0.0
    """From a loss to the first media of the last call's new stream."""
    replaced_s: float = 0.0
    """From a loss to the next worker, at most."""
    gone_s: float = 0.0
    """From the death of the leading process to that of the last worker."""
    apart: int = 0
    """Between the most and the fewest calls that a worker had, when all were new."""
    told: Told = field(default_factory=Told)
    off_ms: list[int] = field(default_factory=list)
    """How far the end of each gap lies from the first sample that came next."""

    def __str__(self) -> str:
        return (
            f"{self.mode}, {self.workers} workers: shares {self.apart} apart, {self.kills} kills, {self.attached} times "
            f"streamed again within {self.longest_s:.1f} s, replaced within {self.replaced_s:.1f} s, all gone "
            f"{self.gone_s:.2f} s after their leader, {self.told}, {len(self.off_ms)} gaps at most "
            f"{max(self.off_ms, default=0)} ms off"
        )


async def run(
    directory: Path,
    *,
    ways: Sequence[tuple[str, int, int]] = (("start", 2, 6), ("connect", 2, 3), ("start", 4, 3)),
    calls: int = 10,
) -> str:
    """Each way is a mode, a number of workers, and how many of them are killed."""
    figures = []
    for number, (mode, workers, kills) in enumerate(ways):
        place = directory / str(number)
        place.mkdir()
        figures.append(await lose(place, mode, workers=workers, kills=kills, calls=calls))
    assert all(each.off_ms for each in figures), "no gap was measured"
    return "; ".join(map(str, figures))


async def lose(
    directory: Path,
    mode: str,
    *,
    workers: int,
    kills: int,
    calls: int,
    postgres: bool = False,
    calm_s: float = 2.0,
) -> Figures:
    """Lose workers in one mode. People talk for a while, `calm_s`, before and after each loss."""
    figures = Figures(mode, workers)
    length = words_in((kills + 2) * (LIMIT_S + calm_s + REPLACED_S))
    server = f"workers = {workers}"
    async with Cluster(directory, "a", mode=mode, postgres=postgres, server=server) as cluster:
        crew = Crew(cluster)
        await cluster.start("a")
        talking: list[SimulatedCall] = []
        for _ in range(
            calls
        ):  # one after the other: a question of Twilio's that is not answered yet may be a stream
            talking.append(await cluster.call(length))
            await cluster.streaming(talking[-1:], 0, LIMIT_S)
        figures.apart = await crew.apart(talking, workers)
        assert figures.apart <= 1, str(figures)
        for _ in range(kills):
            await asyncio.sleep(calm_s)
            await crew.lose_one(talking, figures)
            talking.append(await cluster.call(length))
            await cluster.streaming(talking[-1:], 0, LIMIT_S)
            share = await crew.shares(talking[-1:])
            assert share[crew.lost] == 1, f"{figures}: the new worker did not get the new call"
        await asyncio.sleep(calm_s)
        if mode == "start":  # the other one needs somebody who answers Twilio when a stream breaks off
            await crew.lose_all(talking, figures)
            await asyncio.sleep(calm_s)
        await cluster.hang_up(talking, END_S)
        cluster.send("a", signal.SIGTERM)
        await cluster.ended("a", END_S)
        cluster.require_sound()
        verdict = judge(cluster.receiver.received)
        assert not verdict.problems, f"{figures}: {verdict.problems[0]}"
        for side in cluster.sides:
            gaps = figures.told.add(
                side, cluster.receiver.received, said_ms(side.call), cuts_of(side.call, mode)
            )
            again = len(side.call.report.streams) - 1
            figures.off_ms += [
                off
                for stream in range(again)
                if (off := _off_ms(cluster, side.call, stream, gaps)) is not None
            ]
            assert not gaps, f"{figures}: {side.track} has gaps {gaps} beside those of {again} losses"
    figures.told.require()
    return figures


class Crew:
    """The workers of a cluster's one bridge, as its log tells of them."""

    def __init__(self, cluster: Cluster) -> None:
        self.lost = 0
        """The number of the worker that was killed last."""
        self._cluster = cluster

    @property
    def pids(self) -> dict[int, int]:
        """The processes, by the workers' numbers."""
        return {line["worker"]: line["pid"] for line in self._lines("worker_ready")}

    async def shares(self, calls: Sequence[SimulatedCall]) -> Counter[int]:
        """How many of these calls each worker has."""
        wanted = {call.report.streams[-1].stream_sid: call for call in calls}
        async with asyncio.timeout(LIMIT_S):
            while True:
                carried = {line["stream_sid"]: line["worker"] for line in self._lines("stream_started")}
                if wanted.keys() <= carried.keys():
                    return Counter(carried[stream_sid] for stream_sid in wanted)
                await asyncio.sleep(0.02)

    async def apart(self, calls: Sequence[SimulatedCall], workers: int) -> int:
        """How far the shares of these calls are apart."""
        shares = await self.shares(calls)
        each = [shares[number + 1] for number in range(workers)]
        return max(each) - min(each)

    async def lose_one(self, calls: Sequence[SimulatedCall], figures: Figures) -> None:
        """Kill the worker that has the most calls, and wait until they go on, and another one is there."""
        shares = await self.shares(calls)
        self.lost = max(shares, key=lambda number: shares[number])
        carried = {line["stream_sid"]: line["worker"] for line in self._lines("stream_started")}
        broken = [call for call in calls if carried[call.report.streams[-1].stream_sid] == self.lost]
        before = {call: len(call.report.streams) for call in broken}
        ready = len(self._lines("worker_ready"))
        lost_at = time.time()
        os.kill(self.pids[self.lost], signal.SIGKILL)
        await self._streamed_again(before, lost_at, figures)
        async with asyncio.timeout(REPLACED_S):
            while len(self._lines("worker_ready")) == ready:
                await asyncio.sleep(0.02)
        figures.replaced_s = max(figures.replaced_s, time.time() - lost_at)
        figures.kills += 1

    async def lose_all(self, calls: Sequence[SimulatedCall], figures: Figures) -> None:
        """Kill the process that leads the workers, and start the bridge again."""
        before = {call: len(call.report.streams) for call in calls}
        lost_at = time.time()
        pids = [*self.pids.values()]
        await self._cluster.kill("a")  # returns when the last of them has closed the log
        async with asyncio.timeout(GONE_S):
            while any(map(_lives, pids)):
                await asyncio.sleep(0.01)
        figures.gone_s = time.time() - lost_at
        assert figures.gone_s <= GONE_S, str(figures)
        await self._cluster.start("a")
        await self._streamed_again(before, time.time(), figures)

    async def _streamed_again(
        self, before: dict[SimulatedCall, int], lost_at: float, figures: Figures
    ) -> None:
        for call, streams in before.items():
            await self._cluster.streaming([call], streams, LIMIT_S)
        firsts = [
            call.report.sent[call.report.streams[streams].first_frame] for call, streams in before.items()
        ]
        figures.longest_s = max(figures.longest_s, *(at - lost_at for at in firsts), 0.0)
        figures.attached += len(before)

    def _lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self._cluster.nodes["a"].lines if line["event"] == event]


def _off_ms(cluster: Cluster, call: SimulatedCall, stream: int, gaps: list[Span]) -> int | None:
    """How far the end of the gap after a stream is from the next one's first sample; it is taken from `gaps`.

    It begins where that stream broke off. None if there is none, as so little was missed that it counts as silence.
    """
    frames = call.report.streams[stream].frames // len(TRACKS[cluster.mode])
    went, began = began_ms(call, stream) + frames * FRAME_MS, began_ms(call, stream + 1)
    slack = SLACK_MS + cluster.late_ms
    if not gaps or gaps[0][0] > began + slack:
        assert began - went <= JOIN_MS + slack, f"no gap between {went} ms and {began} ms"
        return None
    gap = gaps.pop(0)
    assert went - CUT_MS - slack <= gap[0] <= went + slack, (
        f"a gap {gap} after a stream that went until {went} ms"
    )
    assert abs(gap[1] - began) <= slack, f"a gap {gap} before a stream that began at {began} ms"
    return abs(gap[1] - began)


def _lives(pid: int) -> bool:
    """Whether a process is there; one that has ended and was not asked how, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
