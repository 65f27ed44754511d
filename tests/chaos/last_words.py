"""Sockets that drop after the call's end, before the server has said its last words: they are there all the same."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from websockets.asyncio.server import ServerConnection

from bridge.local.twilio.script import Script
from tests.chaos.words import Words
from tests.doubles.bridge import Setup, running
from tests.doubles.haste import haste
from tests.doubles.numbered import Connection, NumberedWhisper, reset, speech, stop_reading, zombie
from tests.doubles.track import numbered

WORDS: Final = 10
"""The last two are an utterance that only the end of audio ends."""

ACKNOWLEDGED: Final = '{"type":"end_audio","body":{"status":"acknowledged"}}'
WAYS: Final = ("reset", "1000", "1011", "stop reading", "zombie", "acknowledged and reset")


@dataclass(slots=True)
class Figures:
    """What came of it."""

    words: Words = field(default_factory=Words)
    drops: int = 0
    calls: int = 0
    whole: int = 0
    """Calls with their last words."""

    def __str__(self) -> str:
        return f"{self.drops} drops between end_audio and finished, last words {self.whole}/{self.calls}; {self.words}"


class Interruption:
    """Breaks the first socket of each call once it was told that the audio has ended."""

    def __init__(self, whisper: NumberedWhisper, seed: int) -> None:
        self.drops = 0
        self._whisper = whisper
        self._chance = Random(seed)
        self._until = 0
        whisper.at_end = self._interrupt

    def arm(self, calls: int) -> None:
        """The next sockets are the first ones of so many calls."""
        self._until = len(self._whisper.connections) + calls

    async def _interrupt(self, number: int, _: Connection, socket: ServerConnection) -> None:
        if number >= self._until:
            return
        self.drops += 1
        match self._chance.choice(WAYS):
            case "reset":
                await reset(socket)
            case "stop reading":
                await stop_reading(socket)
            case "zombie":
                await zombie(socket)
            case "acknowledged and reset":
                await socket.send(ACKNOWLEDGED)
                await asyncio.sleep(0.02)
                await reset(socket)
            case code:
                await socket.close(int(code))


async def run(directory: Path, *, drops: int = 50, calls: int = 10, speed: float = 10.0) -> str:
    """So many drops, one each in as many calls, of which `calls` are there at a time."""
    figures = Figures()
    async with NumberedWhisper() as whisper:
        interruption = Interruption(whisper, seed=0)
        with haste(speed):
            async with running(directory, whisper.url) as setup:
                while interruption.drops < drops:
                    interruption.arm(calls)
                    await asyncio.gather(*(_call(setup, figures, speed) for _ in range(calls)))
    figures.drops = interruption.drops
    figures.words.require()
    assert figures.whole == figures.calls, str(figures)
    return str(figures)


async def _call(setup: Setup, figures: Figures, speed: float) -> None:
    report = await setup.call({"inbound": speech(range(WORDS))}, Script(speed=speed)).run()
    assert report.ok, report.problem
    events = await setup.ended(report.call_sid, timeout=30)
    figures.words.compare(numbered(range(WORDS)), events)
    figures.calls += 1
    said = " ".join(each.data["text"] for each in events if each.type == "transcript.final").split()
    figures.whole += said[-2:] == numbered(range(WORDS - 2, WORDS)) and events[-1].data["complete"]
