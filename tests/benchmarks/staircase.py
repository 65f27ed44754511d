"""More and more calls through one system, none of which ends before the top: what each level costs, and how late it is."""

import asyncio
import contextlib
import gc
import json
import os
import time
from array import array
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from bridge.errors import BridgeError
from bridge.local.load import delay, tag
from bridge.local.receiver import Received
from bridge.local.twilio import CallReport, Lateness, Script, SimulatedCall
from tests.benchmarks import sink as pipe
from tests.benchmarks.child import Child
from tests.benchmarks.level import Delays, Level, Times
from tests.benchmarks.steps import Steps
from tests.benchmarks.system import System

APART_S: Final = 0.020
"""Between the beginnings of two calls: a rush of calls is another measurement."""

OPEN_S: Final = 10.0
"""How long the calls of a level may take until their audio is at Whisper."""

SETTLE_S: Final = 0.4
"""What is measured begins so long after the last call's first frame."""

TRAIL_S: Final = 0.1
"""Frames may come so long after the end of a level before they are taken for missing."""

END_S: Final = 20.0
"""How long a system may take to end its sockets to Whisper, and to post what is left, after the last hang-up."""

TAIL_FRAMES: Final = 2
"""Frames of silence that a bridge may add at the end of a track."""

WALL: Final = time.time() - time.monotonic()
"""Calls and webhooks tell wall time."""

SLOW: Final = 0.999
"""The calls' speed: 20.02 ms from message to message, so that within 4 s each meets every phase of a 4 ms tick."""

SPARE_S: Final = 120.0
"""How much longer a call may last than the levels do."""

_TAGGED: Final = 10
"""Messages at the beginning of a call that say its number."""


@dataclass(slots=True)
class Line:
    """One call, and when its frames came to Whisper."""

    number: int
    call: SimulatedCall
    task: asyncio.Task[CallReport]
    came: MutableSequence[float] = field(default_factory=lambda: array("d"))


class Posted(dict[str, float]):
    """The text of each final that came to the webhook -> when, in seconds of the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.forgets: list[Received] = []
        """Where a receiver keeps everything, which would be much."""

    def receive(self, received: Received) -> None:
        """A webhook came."""
        self.forgets.clear()
        if received.type == "transcript.final":
            self.setdefault(str(received.data["text"]), received.received_at - WALL)


class Staircase:
    """Climbs once: `await Staircase(system, sink, posted).climb(steps, seconds, limit_ms)`."""

    def __init__(self, system: System, sink: Child, posted: Posted) -> None:
        self._system = system
        self._sink = sink
        self._lines: dict[int, Line] = {}
        self._finals: dict[str, float] = {}
        self._posted = posted
        self._posts = system.name != "floor"
        self._open = 0
        self._other = b""
        """What is on the track that nobody listens to, and so how long a call may last."""

    async def climb(self, steps: Steps, seconds: float, limit_ms: float | None) -> dict[str, Any]:
        """Measure each level for so long, up to the first that is void twice or has a p99 beyond the limit.

        Without a limit it goes on to the top. Raises `BridgeError`.
        """
        before = self._system.child.memory_kb
        self._other = bytes(b"\xff" * int(8000 * (2 * len(steps.levels) * (seconds + 1) + SPARE_S)))
        climbed: list[Level] = []
        stopped = "top"
        calls = steps.after(0, 0.0)
        try:
            while calls is not None:
                if not await self._add(calls):
                    stopped = "refused"
                    break
                measured = await self._measure(seconds, before)
                if measured.doubtful:
                    measured = await self._measure(seconds, before)
                climbed.append(measured)
                if limit_ms is not None and measured.lateness.void:
                    stopped = "load"
                    break
                if limit_ms is not None and measured.p99_ms() > limit_ms:
                    stopped = "delay"
                    break
                calls = steps.after(calls, measured.busy)
        finally:
            reports = await self._hang_up()
        await self._drain()
        return {
            "system": self._system.name,
            "stopped_by": stopped,
            "levels": [one.figures(self._finals, self._posted) for one in climbed],
            "calls_failed": sum(not report.ok for report in reports),
            "first_problem": next((report.problem for report in reports if not report.ok), ""),
            "frames_lost": sum(self._lost(line) for line in self._lines.values()),
            "finals_missing": len(self._finals.keys() - self._posted.keys()) if self._posts else None,
        }

    async def _add(self, calls: int) -> bool:
        """Make calls until there are so many, and wait until each is heard; whether all were taken."""
        setting = self._system.setting
        while len(self._lines) < calls:
            number = len(self._lines)
            call = SimulatedCall(
                setting.account,
                self._system.voice_url,
                {"inbound": tag.spoken(number) * _TAGGED, "outbound": self._other},
                Script(speed=SLOW),
                public_url=self._system.public_url,
            )
            self._lines[number] = Line(number, call, asyncio.create_task(call.run()))
            await asyncio.sleep(APART_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OPEN_S):
                while not all(line.came for line in self._lines.values()):
                    if any(line.task.done() for line in self._lines.values()):
                        return False
                    await asyncio.sleep(0.05)
                    await self._ask()
                return True
        return False

    async def _measure(self, seconds: float, before: tuple[int, int]) -> Level:
        child = self._system.child
        gc.collect()
        gc.freeze()  # a collection of the load's own would be late audio
        await asyncio.sleep(SETTLE_S)
        since, load_average, stolen = time.monotonic(), os.getloadavg()[0], _stolen_s()
        used = self._cpu_s()
        await asyncio.sleep(seconds)
        until, used, stolen = time.monotonic(), self._cpu_s() - used, _stolen_s() - stolen
        rss, anonymous = child.memory_kb
        await asyncio.sleep(TRAIL_S)
        await self._ask()
        lines = [(self._sent(line), line.came) for line in self._lines.values()]
        late = np.concatenate([self._late(line, seconds) for line in self._lines.values()])
        return Level(
            calls=len(self._lines),
            since=since,
            until=until,
            cpu_s=float(used[0]),
            load_cpu_s=float(used[1]),
            sink_cpu_s=float(used[2]),
            rss_kb=rss - before[0],
            anonymous_kb=anonymous - before[1],
            load_average=load_average,
            stolen_s=stolen,
            delays=Delays.of(lines, since, until, time.monotonic()),
            lateness=Lateness.of(late),
        )

    def _cpu_s(self) -> Times:
        """What the system, the load and the Whisper server have used."""
        return np.array([self._system.child.cpu_s, time.process_time(), self._sink.cpu_s])

    def _sent(self, line: Line) -> Times:
        return np.array(line.call.report.sent) - WALL

    @staticmethod
    def _late(line: Line, seconds: float) -> Times:
        """How late each 20 ms were in the seconds before now."""
        streams = line.call.report.streams
        return np.array(streams[-1].late_s[-int(seconds * 50 * SLOW) :] if streams else [])

    async def _ask(self) -> None:
        """Learn what the Whisper server has seen since it was asked last. Raises `BridgeError`."""
        noted = pipe.noted(json.loads(await self._sink.ask()))
        self._open = noted.open
        self._finals |= noted.finals
        for number, came in noted.came.items():
            if line := self._lines.get(number):
                line.came.extend(came)

    async def _hang_up(self) -> list[CallReport]:
        for line in self._lines.values():
            line.call.hang_up()
            await asyncio.sleep(APART_S / 20)
        return list(await asyncio.gather(*(line.task for line in self._lines.values())))

    async def _drain(self) -> None:
        """Wait until everything has come: the last frames, and the webhooks of all finals."""
        try:
            async with asyncio.timeout(END_S):
                await self._ask()
                while self._open:
                    await asyncio.sleep(0.1)
                    await self._ask()
        except TimeoutError:
            raise BridgeError(
                f"{self._system.name} has not ended {self._open} sockets to Whisper {END_S:.0f} s after the last call; "
                f"its log ends with: {self._system.child.last_line}"
            ) from None
        if not self._posts:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                while self._finals.keys() - self._posted.keys():
                    await asyncio.sleep(0.1)

    def _lost(self, line: Line) -> int:
        """Frames too few, or too many."""
        frames = len(delay.whole(self._sent(line)))
        return max(frames - len(line.came), len(line.came) - frames - TAIL_FRAMES, 0)


def _stolen_s() -> float:
    """What the host has taken of all processors so far (`steal` in proc_stat(5)); 0 where nobody tells."""
    try:
        fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    except OSError:
        return 0.0
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")
