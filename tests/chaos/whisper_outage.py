"""Whisper is away for 90 s, for all calls of an endpoint at once, and comes back.

They must catch up at the configured pace and lose nothing; audio must wait on disk and not in memory; and calls
whose Whisper is somebody else's must not notice.
"""

import asyncio
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from websockets.asyncio.server import ServerConnection

from bridge.audio.remains import SEGMENT
from bridge.local.receiver import Received
from bridge.local.twilio.script import Script
from tests.chaos.words import Words
from tests.doubles.bridge import Setup, running
from tests.doubles.haste import haste
from tests.doubles.numbered import Connection, NumberedWhisper, reset, speech
from tests.doubles.track import numbered

BEFORE_S: Final = 10.0
PACE: Final = 1.5
MAPPED: Final = 4
"""Segments of a journal that may be in memory: the two at its end, and the two that are read."""

OTHER: Final = "+15550142"
LATER_MS: Final = 100.0
"""By how much the p99 of the others may differ, while the machine does half as much again."""


@dataclass(slots=True)
class Figures:
    """What came of it."""

    words: Words = field(default_factory=Words)
    connects_away: int = 0
    """Sockets that were asked for while Whisper was away."""
    pace: float = 0.0
    """The fastest that a call was caught up."""
    mapped: int = 0
    """Most bytes of journals in memory."""
    waiting_s: float = 0.0
    """Most audio of one call that waited."""
    p99_before_ms: float = 0.0
    p99_after_ms: float = 0.0
    caught_up_s: float = 0.0
    """After Whisper was back, on the calls' clocks."""

    def __str__(self) -> str:
        return (
            f"{self.words}; {self.connects_away} connects while away, caught up in {self.caught_up_s:.0f} s at "
            f"{self.pace:.2f} times real time, {self.waiting_s:.0f} s of audio waited with "
            f"{self.mapped / 1024:.0f} KiB in memory, others' p99 {self.p99_before_ms:.0f} then "
            f"{self.p99_after_ms:.0f} ms"
        )


class Outage:
    """Breaks every socket of a server and refuses new ones, while it lasts."""

    def __init__(self, whisper: NumberedWhisper) -> None:
        self.on = False
        self._whisper = whisper
        whisper.fault = self._cut

    def begin(self) -> None:
        """It is away."""
        self.on = True
        self._whisper.refusing = 502

    def end(self) -> None:
        """It is back."""
        self.on = False
        self._whisper.refusing = 0

    async def _cut(self, _: int, __: Connection, socket: ServerConnection) -> None:
        if self.on:
            await reset(socket)


async def run(
    directory: Path,
    *,
    calls: int = 8,
    others: int = 4,
    away_s: float = 90.0,
    speed: float = 5.0,
    later_ms: float = LATER_MS,
) -> str:
    """`calls` calls of the endpoint that goes away, beside `others` of another one; seconds are the calls' own."""
    figures = Figures()
    words = round((BEFORE_S + away_s + 30) * 4 / 1.44)
    async with NumberedWhisper() as whisper, NumberedWhisper() as elsewhere:
        outage = Outage(whisper)
        with haste(speed):
            async with running(
                directory,
                whisper.url,
                replay_speed=PACE * speed,
                twilio={"tracks": "inbound"},
                numbers=[{"number": OTHER, "whisper_url": elsewhere.url}],
            ) as setup:
                audio, script = {"inbound": speech(range(words))}, Script(speed=speed)
                hit = [setup.call(audio, script) for _ in range(calls)]
                free = [setup.call(audio, script, called=OTHER) for _ in range(others)]
                began = time.time()
                speaking = asyncio.gather(*(call.run() for call in [*hit, *free]))
                watching = asyncio.create_task(_watch(directory, figures))
                await asyncio.sleep(BEFORE_S / speed)
                outage.begin()
                gone, attempts = time.time(), len(whisper.attempts)
                await asyncio.sleep(away_s / speed)
                figures.connects_away = len(whisper.attempts) - attempts
                outage.end()
                back, behind = time.time(), asyncio.get_running_loop().time()
                for report in await speaking:
                    assert report.ok, report.problem
                for call in [*hit, *free]:
                    events = await setup.ended(call.report.call_sid, timeout=120)
                    assert events[-1].data["complete"], "a call did not get its last words"
                    figures.words.compare(numbered(range(words)), events)
                watching.cancel()
                figures.caught_up_s = (_last_final(setup, hit[0].report.call_sid) - back) * speed
                figures.pace = max(
                    _pace(each, speed) for each in whisper.connections if each.opened_at > behind
                )
                delays = [
                    each for call in free for each in _delays(setup, call.report.call_sid, began, speed)
                ]
                figures.p99_before_ms = _p99([delay for at, delay in delays if at < gone])
                figures.p99_after_ms = _p99([delay for at, delay in delays if at >= back])
    figures.words.require()
    assert figures.pace <= PACE * 1.05, f"caught up too fast: {figures}"
    assert figures.mapped <= (calls + others) * MAPPED * SEGMENT, f"too much in memory: {figures}"
    assert figures.p99_after_ms <= figures.p99_before_ms + later_ms, f"others were delayed: {figures}"
    return str(figures)


async def _watch(directory: Path, figures: Figures) -> None:
    while True:
        await asyncio.sleep(0.1)
        _look(directory, figures)


def _look(directory: Path, figures: Figures) -> None:
    """How much of the journals is in memory, and how much audio waits."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    ranges = [line.split()[0].split("-") for line in lines if line.endswith(".ulaw")]
    figures.mapped = max(figures.mapped, sum(int(end, 16) - int(start, 16) for start, end in ranges))
    tracks: dict[Path, int] = {}
    for segment in directory.rglob("*.ulaw"):
        tracks[segment.parent] = tracks.get(segment.parent, 0) + SEGMENT
    figures.waiting_s = max([figures.waiting_s, *(size / 8000 for size in tracks.values())])


def _pace(connection: Connection, speed: float) -> float:
    """How fast a socket was sent audio, compared with people; what passes at once in the beginning left out."""
    seconds = connection.last_at - connection.opened_at
    return (connection.heard_s - 1.0) / (seconds * speed) if seconds > 1.0 else 0.0


def _finals(setup: Setup, call_sid: str) -> list[Received]:
    return [
        each
        for each in setup.receiver.received
        if each.call_sid == call_sid and each.type in {"transcript.final", "transcript.late"}
    ]


def _last_final(setup: Setup, call_sid: str) -> float:
    return max(each.received_at for each in _finals(setup, call_sid))


def _delays(setup: Setup, call_sid: str, began: float, speed: float) -> list[tuple[float, float]]:
    """When each final came, and how long after its last word was said, in ms; the call's start is their smallest."""
    finals = [
        (each.received_at, each.received_at - began - each.data["end_ms"] / 1000 / speed)
        for each in _finals(setup, call_sid)
    ]
    first = min(delay for _, delay in finals)
    return [(at, (delay - first) * 1000) for at, delay in finals]


def _p99(delays: list[float]) -> float:
    ordered = sorted(delays)
    return ordered[max(0, math.ceil(0.99 * len(ordered)) - 1)]
