"""Calls whose Whisper sockets break every few seconds, in every way there is: each word comes once, in order.

The comparison goes the way of most clients: after a drop it goes on with the audio that comes.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest import mock

from bridge.local.twilio.script import Script
from bridge.whisper import session
from bridge.whisper.watermark import Watermark
from tests.chaos.words import Words
from tests.doubles.bridge import running
from tests.doubles.haste import haste
from tests.doubles.numbered import NumberedWhisper, speech
from tests.doubles.track import numbered
from tests.doubles.troubles import Troubles

COLD_S: Final = 4.0
"""Of the call: how long a cold start takes at most."""

WORDS_EACH_S: Final = 4 / 1.44
"""What `speech` says in a second."""


@dataclass(slots=True)
class Figures:
    """What came of it."""

    words: Words = field(default_factory=Words)
    connects: int = 0
    drops: int = 0
    """Sockets that broke."""

    def __str__(self) -> str:
        return f"{self.words}, {self.drops} sockets broken, {self.connects} asked for"


class Forgetful(Watermark):
    """Begins a new socket where the old one was, and not where it had finalised. For the comparison only."""

    _sent = 0

    def sent(self, begin: int, end: int, peak: int) -> None:
        super().sent(begin, end, peak)
        self._sent = end

    def restart(self) -> None:
        self.lost(self._sent)
        super().restart()


async def run(
    directory: Path, *, seeds: int = 5, calls: int = 8, seconds: float = 60.0, speed: float = 10.0
) -> str:
    """Calls of so many seconds each, `speed` times as fast as they would be."""
    words, total, without = round(seconds * WORDS_EACH_S), Figures(), Figures()
    for seed in range(seeds):
        await _calls(directory / str(seed), total, Troubles(seed), calls=calls, words=words, speed=speed)
    total.words.require()
    with mock.patch.object(session, "Watermark", Forgetful):
        await _calls(directory / "no", without, Troubles(0), calls=calls, words=words, speed=speed)
    assert without.words.lost > without.words.spoken / 50, (
        f"the faults were too few to prove anything: {without}"
    )
    share = without.words.lost / without.words.spoken
    return f"{total}; without replay {without.words.lost} of {without.words.spoken} words lost ({share:.1%})"


async def _calls(
    directory: Path, figures: Figures, troubles: Troubles, *, calls: int, words: int, speed: float
) -> None:
    troubles.cold_s = COLD_S / speed
    async with NumberedWhisper() as whisper:
        troubles.afflict(whisper)
        with haste(speed):
            async with running(directory, whisper.url, replay_speed=1.5 * speed) as setup:
                made = [
                    setup.call({"inbound": speech(range(words))}, Script(speed=speed)) for _ in range(calls)
                ]
                for report in await asyncio.gather(*(call.run() for call in made)):
                    assert report.ok, report.problem
                    events = await setup.ended(report.call_sid, timeout=60)
                    assert events[-1].data["complete"], f"{figures}: a call did not get its last words"
                    figures.words.compare(numbered(range(words)), events)
        figures.connects += len(whisper.attempts)
        figures.drops += len(whisper.connections) - calls
