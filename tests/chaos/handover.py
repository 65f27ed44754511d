"""Bridges are told to end while people talk, and hand their calls over.

With another bridge beside it: the new stream begins before the old one ends, so that no word is lost, none is told
twice, and there is no gap; a `<Connect>` can have one stream only, so that there is a short gap. After a second
signal nobody is waited for. A bridge that is alone leaves its calls to the process that is started next.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.local.deliveries import judge
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.script import FRAME_MS
from tests.chaos.cluster import Cluster, began_ms, said_ms, went_ms
from tests.chaos.scenario import Lacking
from tests.chaos.side import words_in
from tests.chaos.told import SLACK_MS, Span, Told
from tests.doubles import postgres

DEADLINE_S: Final = 2.0
GONE_S: Final = 40.0
"""Within so long after the deadline a bridge has ended."""

HURRY_S: Final = 15.0
"""And after a second signal."""

AGAIN_S: Final = 20.0
END_S: Final = 60.0
SHORT_MS: Final = 500
"""The longest gap of a `<Connect>` whose stream goes from one bridge to another."""

CUT_MS: Final = 300
"""What was sent in so much time before a socket was closed may not have been read any more."""


@dataclass(slots=True)
class Figures:
    """What happened, and what became of it."""

    how: str
    calls: int = 0
    took_s: float = 0.0
    """From the deadline, or the second signal, to the end of the process."""
    told: Told = field(default_factory=Told)
    gaps_ms: list[int] = field(default_factory=list)
    """How long each is."""
    off_ms: list[int] = field(default_factory=list)
    """How far the end of each lies from the first sample that came next."""

    def __str__(self) -> str:
        gaps = f"{len(self.gaps_ms)} gaps of at most {max(self.gaps_ms, default=0)} ms"
        off = f", off by at most {max(self.off_ms)} ms" if self.off_ms else ""
        return f"{self.how}: {self.calls} calls in {self.took_s:.1f} s, {self.told}, {gaps}{off}"


async def run(directory: Path, *, modes: Sequence[str] = ("start", "connect"), calls: int = 10) -> str:
    """Every way of ending, in each mode."""
    if not postgres.installed():
        raise Lacking(postgres.MISSING)
    figures = []
    for mode in modes:
        for name, way in (("beside", beside), ("hurried", hurried), ("alone", alone)):
            place = directory / f"{mode}-{name}"
            place.mkdir()
            figures.append(await way(place, mode, calls))
    return "; ".join(map(str, figures))


async def beside(directory: Path, mode: str, calls: int, talk_s: float = 3.0) -> Figures:
    """There is another bridge, which takes the calls and the new ones; nothing is lost."""
    figures = Figures(f"{mode}, handed over")
    server = f"drain_deadline_s = {DEADLINE_S}"
    async with Cluster(directory, "a", "b", mode=mode, server=server) as cluster:
        talking = await _talk(cluster, calls, talk_s)
        await cluster.start("b")
        began = time.monotonic()
        cluster.send("a", signal.SIGTERM)
        await cluster.front.until(cluster.ports["b"])
        late = await cluster.call(words_in(talk_s + GONE_S + END_S))
        await cluster.ended("a", DEADLINE_S + GONE_S)
        figures.took_s = time.monotonic() - began - DEADLINE_S
        await cluster.streaming([late], 0, AGAIN_S)
        await _end(cluster, figures, [*talking, late], dict.fromkeys(talking, 1), talk_s)
        assert len(late.report.streams) == 1
    assert figures.told.missed == 0 or mode == "connect", str(figures)
    assert not figures.gaps_ms or mode == "connect", str(figures)
    assert max(figures.gaps_ms, default=0) <= SHORT_MS, str(figures)
    return figures


async def hurried(directory: Path, mode: str, calls: int, talk_s: float = 3.0) -> Figures:
    """A second signal comes; the other bridge finds the calls left."""
    figures = Figures(f"{mode}, second signal")
    async with Cluster(directory, "a", "b", mode=mode) as cluster:
        talking = await _talk(cluster, calls, talk_s)
        await cluster.start("b")
        cluster.send("a", signal.SIGTERM)
        await cluster.front.until(cluster.ports["b"])
        began = time.monotonic()
        cluster.send("a", signal.SIGTERM)
        await cluster.ended("a", HURRY_S)
        figures.took_s = time.monotonic() - began
        await _end(cluster, figures, talking, dict.fromkeys(talking, 1), talk_s)
    return figures


async def alone(directory: Path, mode: str, calls: int, talk_s: float = 3.0) -> Figures:
    """There is no other bridge: the next process of this one goes on, from the same directory."""
    figures = Figures(f"{mode}, alone and restarted")
    server = f"drain_deadline_s = {DEADLINE_S}"
    async with Cluster(directory, "a", mode=mode, postgres=False, server=server) as cluster:
        talking = await _talk(cluster, calls, talk_s)
        began = time.monotonic()
        cluster.send("a", signal.SIGTERM)
        await cluster.ended("a", DEADLINE_S + GONE_S)
        figures.took_s = time.monotonic() - began - DEADLINE_S
        before = {call: len(call.report.streams) for call in talking}
        await cluster.start("a")
        await _end(cluster, figures, talking, before, talk_s)
    return figures


async def _talk(cluster: Cluster, calls: int, talk_s: float) -> list[SimulatedCall]:
    """Start a bridge, and have people talk on it for a while."""
    await cluster.start("a")
    length = words_in(2 * talk_s + DEADLINE_S + GONE_S + AGAIN_S + END_S)
    talking = [await cluster.call(length) for _ in range(calls)]
    await cluster.streaming(talking, 0, AGAIN_S)
    await asyncio.sleep(talk_s)
    return talking


async def _end(
    cluster: Cluster,
    figures: Figures,
    calls: Sequence[SimulatedCall],
    before: dict[SimulatedCall, int],
    talk_s: float,
) -> None:
    """Have people talk on, on a further stream than those `before`; then end everything, and look at what was told."""
    for call, streams in before.items():
        await cluster.streaming([call], streams, AGAIN_S)
    await asyncio.sleep(talk_s)
    await cluster.hang_up(calls, END_S)
    for name in list(cluster.nodes):
        cluster.send(name, signal.SIGTERM)
        await cluster.ended(name, END_S)
    cluster.require_sound()
    verdict = judge(cluster.receiver.received)
    assert not verdict.problems, f"{figures.how}: {verdict.problems[0]}"
    figures.calls = len(before)
    for side in cluster.sides:
        cuts = cuts_of(side.call, cluster.mode)
        gaps = figures.told.add(side, cluster.receiver.received, said_ms(side.call), cuts)
        if side.call in before and gaps:
            assert len(gaps) == 1, f"{figures.how}: gaps {gaps}"
            figures.off_ms.append(_off_ms(cluster, side.call, before[side.call], gaps[0]))
        figures.gaps_ms += [until - start for start, until in gaps]
    figures.told.require()


def cuts_of(call: SimulatedCall, mode: str) -> list[int]:
    """Where a stream began when the one before it had ended already, in ms on the call's clock."""
    begins = [stream.first_frame * FRAME_MS for stream in call.report.streams]
    return [at for number, at in enumerate(begins[1:]) if went_ms(call, number, mode) <= at]


def _off_ms(cluster: Cluster, call: SimulatedCall, streams: int, gap: Span) -> int:
    """How far a gap's end is from the first sample of the next stream. It has to begin where the one before ended."""
    went, began, late = went_ms(call, streams - 1, cluster.mode), began_ms(call, streams), cluster.late_ms
    assert went - CUT_MS - late <= gap[0] <= went + SLACK_MS, (
        f"a gap {gap} after a stream that went until {went} ms"
    )
    assert abs(gap[1] - began) <= SLACK_MS + late, f"a gap {gap} before a stream that began at {began} ms"
    return abs(gap[1] - began)
