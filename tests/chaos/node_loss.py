"""A bridge is lost with all its calls, again and again: killed, and once frozen and woken up when it is too late.

Two bridges with journals of their own share one PostgreSQL, and one address. All live calls are on one of them
when it is lost; some are hung up before anybody has taken them over. The other one has to have every call that goes
on streamed again, to go on with its sequence, and to tell of exactly what was missed. Then the lost one comes back,
and the next loss hits the other.
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
from tests.chaos.cluster import Cluster, began_ms, said_ms
from tests.chaos.scenario import Lacking
from tests.chaos.side import Side, words_in
from tests.chaos.told import SLACK_MS, Span, Told
from tests.doubles import postgres

LIMIT_S: Final = 20.0
"""Within so long every call must be streamed again."""

HUNG_UP: Final = 2
"""Calls besides the others that are hung up while nobody has them."""

END_S: Final = 60.0
ROUNDED_MS: Final = 1000
"""When a call ended Twilio tells in whole seconds."""

GOING_AWAY: Final = 1001


@dataclass(slots=True)
class Figures:
    """What happened, and what became of it."""

    mode: str = ""
    losses: int = 0
    attached: int = 0
    """Calls that were streamed again, over all losses."""
    longest_s: float = 0.0
    """From a loss to the first media of the last call's new stream."""
    fenced: int = 0
    """Streams that the bridge let go of that came back to life."""
    ended: int = 0
    """Calls that were hung up while nobody had them, and have their `call.ended`."""
    told: Told = field(default_factory=Told)
    off_ms: list[int] = field(default_factory=list)
    """How far each gap's start or end, the worse of them, lies from where it must."""
    late_ms: int = 0
    """How long the machine stood still at most."""

    def __str__(self) -> str:
        return (
            f"{self.mode}: {self.losses} losses, {self.attached} times streamed again within {self.longest_s:.1f} s, "
            f"{self.fenced} streams of a zombie let go, {self.ended} calls ended meanwhile, {self.told}, "
            f"{len(self.off_ms)} gaps at most {max(self.off_ms, default=0)} ms off, half of them at most "
            f"{sorted(self.off_ms)[len(self.off_ms) // 2]} ms, on a machine that stood still for {self.late_ms} ms"
        )


async def run(
    directory: Path,
    *,
    modes: Sequence[str] = ("start", "connect"),
    calls: int = 10,
    kills: int = 3,
    zombies: int = 1,
) -> str:
    """Lose bridges that often, in each mode."""
    if not postgres.installed():
        raise Lacking(postgres.MISSING)
    figures = []
    for mode in modes:
        place = directory / mode
        place.mkdir()
        figures.append(await lose(place, mode, calls=calls, kills=kills, zombies=zombies))
    return "; ".join(map(str, figures))


async def lose(
    directory: Path,
    mode: str,
    *,
    calls: int,
    kills: int,
    zombies: int,
    calm_s: float = 3.0,
    frozen_s: float = 20.0,
) -> Figures:
    """Lose bridges in one mode. People talk for a while, `calm_s`, before and after each loss."""
    figures = Figures(mode)
    length = words_in((kills + zombies) * (LIMIT_S + calm_s + frozen_s + 10) + 30)
    async with Cluster(directory, "a", "b", mode=mode) as cluster:
        losses = Losses(cluster, figures, length, calm_s, frozen_s)
        await cluster.start("a")
        losses.lasting = [await cluster.call(length) for _ in range(calls)]
        await cluster.streaming(losses.lasting, 0, LIMIT_S)
        await cluster.start("b")
        for number in range(kills + zombies):
            await asyncio.sleep(calm_s)
            await losses.lose("ab"[number % 2], zombie=number >= kills)
        await asyncio.sleep(calm_s)
        await cluster.hang_up(losses.lasting, END_S)
        for name in list(cluster.nodes):
            cluster.send(name, signal.SIGTERM)
            await cluster.ended(name, END_S)
        cluster.require_sound()
        verdict = judge(cluster.receiver.received)
        assert not verdict.problems, f"{figures}: {verdict.problems[0]}"
        losses.check(zombies)
    return figures


class Losses:
    """The losses of bridges, and what is to be missing after each."""

    def __init__(
        self, cluster: Cluster, figures: Figures, length: int, calm_s: float, frozen_s: float
    ) -> None:
        self.lasting: list[SimulatedCall] = []
        """Calls that go on all the time."""
        self._cluster = cluster
        self._figures = figures
        self._length = length
        self._calm_s = calm_s
        self._frozen_s = frozen_s
        self._missing: dict[tuple[str, str], list[Span]] = {}
        self._ended: dict[SimulatedCall, int] = {}  # hung up while nobody had them, and when in ms

    async def lose(self, lost: str, *, zombie: bool) -> None:
        """Lose one bridge, which has all calls, and have the other one take them over."""
        cluster, figures = self._cluster, self._figures
        cluster.front.favoured = cluster.ports[lost]
        brief = [await cluster.call(self._length) for _ in range(HUNG_UP)]
        await cluster.streaming(brief, 0, LIMIT_S)
        await asyncio.sleep(self._calm_s)
        before = {call: len(call.report.streams) for call in self.lasting}
        lost_at = time.time()
        if zombie:
            cluster.send(lost, signal.SIGSTOP)
        else:
            await cluster.kill(lost)
        settled = await cluster.settled(cluster.sides)
        for call in brief:
            call.hang_up()
            self._ended[call] = said_ms(call)
        for call in self.lasting:
            await cluster.streaming([call], before[call], LIMIT_S)
        figures.losses += 1
        figures.attached += len(self.lasting)
        for side in cluster.sides:
            key = _key(side)
            if side.call in before:
                again = began_ms(side.call, before[side.call])
                self._missing.setdefault(key, []).append((settled[key], again))
            elif side.call in brief:
                self._missing.setdefault(key, []).append((settled[key], self._ended[side.call]))
        sent = (call.report.sent[call.report.streams[before[call]].first_frame] for call in self.lasting)
        figures.longest_s = max(figures.longest_s, *(at - lost_at for at in sent))
        for call in brief:
            await cluster.receiver.wait_for_type("call.ended", END_S, call_sid=call.report.call_sid)
            figures.ended += 1
        if zombie:
            await asyncio.sleep(max(0.0, lost_at + self._frozen_s - time.time()))
            await self._wake(lost, before)
        else:
            await cluster.start(lost)

    async def _wake(self, lost: str, before: dict[SimulatedCall, int]) -> None:
        """The frozen bridge goes on: it has to let go of what is no longer its own."""
        self._cluster.send(lost, signal.SIGCONT)
        async with asyncio.timeout(END_S):
            for call, streams in before.items():
                old = call.report.streams[streams - 1]
                while not (old.closed_by_bridge or old.close_code is not None or old.error):
                    await asyncio.sleep(0.01)
                self._figures.fenced += old.close_code == GOING_AWAY
        await self._cluster.front.until(*self._cluster.ports.values())

    def check(self, zombies: int) -> None:
        """Compare what was said with what was told."""
        figures, received = self._figures, self._cluster.receiver.received
        figures.late_ms = self._cluster.late_ms
        for side in self._cluster.sides:
            key, missing = _key(side), self._missing.get(_key(side), [])
            ended_ms = self._ended.get(side.call)
            until_ms = said_ms(side.call) if ended_ms is None else ended_ms - ROUNDED_MS
            gaps = figures.told.add(side, received, until_ms)
            if ended_ms is not None and not gaps and missing[0][0] > ended_ms - ROUNDED_MS:
                continue
            assert len(gaps) == len(missing), f"{key}: gaps {gaps} where {missing} is missing"
            for (start, end), (from_ms, until_ms) in zip(gaps, missing, strict=True):
                off_ms = abs(end - until_ms)
                if until_ms == ended_ms:
                    assert off_ms <= ROUNDED_MS, f"{key}: gap until {end}, ended at {ended_ms} ms"
                    off_ms = 0
                figures.off_ms.append(max(abs(start - from_ms), off_ms))
                assert figures.off_ms[-1] <= SLACK_MS + figures.late_ms, (
                    f"{figures}, {key}: a gap of {start} to {end} where {from_ms} to {until_ms} is missing"
                )
        figures.told.require()
        if figures.mode == "start":  # in the other mode Twilio ends the old stream itself
            assert figures.fenced == zombies * len(self.lasting), str(figures)
        assert figures.longest_s <= LIMIT_S, str(figures)


def _key(side: Side) -> tuple[str, str]:
    return side.call.report.call_sid, side.track
