"""The bridge is killed in mid-call, again and again, and Whisper's sockets break too.

Calls of two people go on in real time. After each death a new process starts on the same directory, and has Twilio
open the streams anew; now and then that process is killed too, while it is starting. The words are numbered. Of those that were received whole none may be missing or said twice, and a gap must tell of every
other moment, and of no more than that.
"""

import asyncio
import signal
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Self

from websockets.asyncio.server import ServerConnection

from bridge.audio.remains import ENDS
from bridge.audio.seams import Seams
from bridge.events import Track
from bridge.local.deliveries import judge
from bridge.local.receiver import Received, Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest import RestApi
from bridge.local.twilio.script import FRAME_MS
from tests.chaos.port import free_port
from tests.chaos.side import Side, voices, words_in
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET
from tests.doubles.numbered import WORD_MS, Connection, NumberedWhisper, reset
from tests.doubles.process import Around, Process, started

TRACKS: Final[tuple[Track, ...]] = ("inbound", "outbound")
LIFE_S: Final = 1.2
"""The longest life of a bridge, from when all its streams are open."""

YOUNG: Final = 5
"""Every so many kills hit a bridge while it is starting."""

START_S: Final = 0.9
"""A start takes about so long."""

LONGEST_S: Final = 10.0
"""From one kill to the next, on a machine that is busy; the calls have words for so long, and then are hung up."""

SOCKET_S: Final = 6.0
"""A Whisper socket lives for so much audio, on average."""

CALM_S: Final = 3.0
"""The calls go on for so long after the last kill."""

EXACT_MS: Final = 40
READ_MS: Final = 500
"""What was sent so long before a kill was read, though its stream was only being admitted, on a busy machine."""

END_S: Final = 120.0
DEFECTS: Final = ("call_task_failed", "recovery_failed", "tick_source_failed", "event_dropped")
"""Lines of the log that no fault from outside may cause."""


@dataclass(slots=True)
class Figures:
    """What happened, and what became of it."""

    kills: int = 0
    drops: int = 0
    whole: int = 0
    """Words received whole."""
    lost: int = 0
    twice: int = 0
    disordered: int = 0
    """Tracks whose words came in another order than they were said."""
    off_ms: list[int] = field(default_factory=list)
    """How far each gap's start or end, the worse of them, lies from where it must."""

    @property
    def exact_ms(self) -> int:
        """What 99 % of the gaps are off at most; the others met a machine that stood still."""
        return sorted(self.off_ms)[int(0.99 * (len(self.off_ms) - 1))] if self.off_ms else 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {self.drops} Whisper sockets broken, {self.whole} words received whole, "
            f"lost {self.lost}, said twice {self.twice}, tracks out of order {self.disordered}, "
            f"{len(self.off_ms)} gaps, 99 % of them at most {self.exact_ms} ms off, all {max(self.off_ms, default=0)} ms"
        )


@dataclass(slots=True)
class Heard(Side):
    """One track of a call, and what each life of the bridge received of it, in ms on the call's clock."""

    stretches: list[tuple[int, int]] = field(default_factory=list)
    missing: list[tuple[int, int]] = field(default_factory=list)

    @property
    def begin_ms(self) -> int:
        """Where the latest stream begins."""
        return self.call.report.streams[-1].first_frame * FRAME_MS

    def note(self, received_ms: int) -> None:
        """A life of the bridge is over, or the call; up to there was received."""
        before_ms = self.stretches[-1][1] if self.stretches else None
        if received_ms <= (before_ms or 0):
            return
        if before_ms is not None:
            sent = self.call.report.sent
            again_s = sent[self.call.report.streams[-1].first_frame] - sent[0]  # by the wall clock
            self.missing.append((before_ms, round(again_s * 1000)))
        self.stretches.append((self.begin_ms, received_ms))


async def run(directory: Path, *, kills: int = 60, calls: int = 6, seed: int = 1) -> Figures:
    """Kill the bridge that often."""
    random, figures = Random(seed), Figures()

    async def fault(_number: int, _connection: Connection, socket: ServerConnection) -> None:
        if random.random() < 0.032 / SOCKET_S:
            figures.drops += 1
            await reset(socket)

    async with NumberedWhisper() as whisper, Receiver(SECRET) as receiver, RestApi(ACCOUNT) as twilio:
        whisper.fault = fault
        around = Around(
            directory,
            whisper.url,
            receiver.url,
            twilio=f'api_base_url = "{twilio.url}"',
            whisper="replay_speed = 2.0",
            port=free_port(),
        )
        length = words_in((kills + 1) * LONGEST_S + CALM_S)
        sides = [side for number in range(calls) for side in _call(twilio, around, number, length)]
        async with Lives(around, sides, figures, random) as lives:
            while figures.kills < kills:
                await lives.kill(young=figures.kills % YOUNG == YOUNG - 1)
            await lives.end(receiver)
    for defect in DEFECTS:
        assert not lives.logged[defect], f"{figures}: {lives.logged[defect]} times {defect} in the log"
    assert not list((directory / "outbox" / "journal").glob("*/CA*")), "audio was left on the disk"
    verdict = judge(receiver.received)
    assert not verdict.problems, f"{figures}: {verdict.problems[0]}"
    for side in sides:
        _check(side, receiver.received, figures)
    assert figures.lost == figures.twice == figures.disordered == 0, str(figures)
    assert figures.exact_ms <= EXACT_MS, str(figures)
    return figures


def _call(twilio: RestApi, around: Around, number: int, length: int) -> list[Heard]:
    """A call of two people, each of whom says `length` words."""
    voice = f"http://127.0.0.1:{around.port}/twilio/voice"
    call = twilio.add(SimulatedCall(ACCOUNT, voice, voices(number, length), public_url=PUBLIC_URL))
    return Heard.of(call, number, length, TRACKS)


class Lives:
    """One bridge after the other on the same directory, and the calls that go on meanwhile."""

    def __init__(self, around: Around, sides: Sequence[Heard], figures: Figures, random: Random) -> None:
        self._around = around
        self._sides = sides
        self._calls = list(dict.fromkeys(side.call for side in sides))
        self._figures = figures
        self._random = random
        self._bridge: Process
        self._running: list[asyncio.Task[Any]] = []
        self._streams = dict.fromkeys(self._calls, 0)  # that each call has had, and that are over
        self.logged: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._bridge = await started(self._around)
        await self._bridge.port()
        self._running = [asyncio.create_task(call.run()) for call in self._calls]
        await self._streaming()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def kill(self, *, young: bool) -> None:
        """Kill the bridge in mid-call; `young`: its successor too, which has no stream yet."""
        await asyncio.sleep(self._random.uniform(0, LIFE_S))
        await self._killed()
        if young:
            self._bridge = await started(self._around)
            await asyncio.sleep(self._random.uniform(0, START_S))
            await self._killed()
        self._streams = {call: len(call.report.streams) for call in self._calls}
        self._bridge = await started(self._around)
        await self._bridge.port()
        await self._streaming()

    async def end(self, receiver: Receiver) -> None:
        """Let the calls end, and wait for what is left."""
        await asyncio.sleep(CALM_S)
        for call in self._calls:
            call.hang_up()
        await asyncio.gather(*self._running)
        for side in self._sides:
            side.note(len(side.call.report.sent) * FRAME_MS)
        for call in self._calls:
            await receiver.wait_for_type("call.ended", END_S, call_sid=call.report.call_sid)
        self._bridge.send(signal.SIGTERM)
        assert await self._bridge.exit() == 0, "the last bridge did not end in order"

    async def _streaming(self) -> None:
        async with asyncio.timeout(LONGEST_S):
            while not all(
                len(call.report.streams) > self._streams[call] and call.report.streams[-1].frames
                for call in self._calls
            ):
                await asyncio.sleep(0.005)

    async def _killed(self) -> None:
        killed_at = time.time()
        await self._close()
        self._figures.kills += 1
        self._look(killed_at)

    async def _close(self) -> None:
        """Kill it, and keep what it logged."""
        await self._bridge.close()
        self.logged.update(line["event"] for line in self._bridge.lines)

    def _look(self, killed_at: float) -> None:
        """Note what the bridge had received when it was killed: it is on the disk."""
        for side in self._sides:
            sent = side.call.report.sent
            received_ms = _received_ms(self._around.directory, side)
            before_ms = bisect_right(sent, killed_at - READ_MS / 1000) * FRAME_MS
            until_ms = bisect_right(sent, killed_at) * FRAME_MS
            assert before_ms - READ_MS <= max(received_ms, side.begin_ms) <= until_ms + READ_MS, (
                f"{side.track}: received until {received_ms} ms, where {before_ms} to {until_ms} were sent"
            )
            side.note(received_ms)


def _received_ms(directory: Path, side: Heard) -> int:
    """Up to where a track's audio is on the disk."""
    (folder,) = (directory / "outbox" / "journal").glob(f"*/{side.call.report.call_sid}.*/{side.track}")
    end, received, _ = ENDS.unpack((folder / "ends").read_bytes())
    return Seams.parse((folder / "seams").read_text(), end).clock(received) // 8


def _check(side: Heard, received: Iterable[Received], figures: Figures) -> None:
    events = {one.webhook_id: one for one in received if one.call_sid == side.call.report.call_sid}
    told = sorted(events.values(), key=lambda one: int(one.data["sequence"]))
    own = [one for one in told if one.data.get("track") == side.track]
    ended = told[-1].data
    assert ended["complete"], f"{side.call.report.call_sid}: call.ended says that it is not complete"
    _check_gaps(side, [one.data for one in own if one.type == "transcript.gap"], figures)
    finals = [one.data for one in own if one.type == "transcript.final"]
    lines = [line["text"] for line in ended["transcript"] if line["track"] == side.track]
    assert lines == [final["text"] for final in finals], "call.ended has another transcript than the finals"
    heard = [side.index(word) for final in finals for word in final["words"]]
    counted = Counter(heard)
    whole = {
        index
        for begin, end in side.stretches
        for index in range(side.length)
        if begin <= side.begins_ms(index) and side.begins_ms(index) + WORD_MS <= end
    }
    figures.whole += len(whole)
    figures.lost += len(whole - counted.keys())
    figures.twice += sum(count - 1 for count in counted.values())
    figures.disordered += heard != sorted(heard)


def _check_gaps(side: Heard, gaps: Sequence[dict[str, Any]], figures: Figures) -> None:
    told = [(gap["start_ms"], gap["end_ms"]) for gap in gaps]
    assert len(told) == len(side.missing), (
        f"{side.track}: gaps {told[:5]} where {side.missing[:5]} is missing"
    )
    for (start, end), (from_ms, until_ms) in zip(told, side.missing, strict=True):
        figures.off_ms.append(max(abs(start - from_ms), abs(end - until_ms)))
