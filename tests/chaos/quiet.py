"""Ten minutes on hold, in silence, with music and with music that pauses, at a real voice detector and recogniser.

Nobody says a word, so nothing may be transcribed without a doubt being told; each call needs one socket; and the
audio that waits on disk does not grow.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

import numpy as np

from bridge.audio import mulaw, voice
from bridge.audio.remains import SEGMENT
from bridge.local.twilio.script import Script
from bridge.whisper import patience
from bridge.whisper.watermark import QUIET_S
from bridge.whisper.witness import ENOUGH
from tests.chaos.scenario import Lacking
from tests.doubles.bridge import running
from tests.doubles.haste import WAITS
from tests.doubles.process import Process

NOTES: Final = (261.6, 329.6, 392.0, 523.3, 440.0, 349.2, 293.7, 392.0)
"""Hertz."""
NOTE_S: Final = 0.5
PAUSE_S: Final = 0.4
"""Rest after every two notes, of music that pauses: longer than `watermark.JOIN`."""

WAITING_S: Final = QUIET_S + ENOUGH / mulaw.SAMPLE_RATE + 4 * SEGMENT / mulaw.SAMPLE_RATE
"""Audio is kept for so long, until somebody has listened to it, in whole segments and a margin."""


@dataclass(slots=True)
class Figures:
    """What came of it."""

    minutes: float
    transcripts: int = 0
    doubted: int = 0
    sockets: int = 0
    dropped: int = 0
    """Calls that were told of a gap in their middle."""
    waiting_s: float = 0.0
    """Most audio of one call that was on disk."""
    later_s: float = 0.0
    """The same in the last third."""

    def __str__(self) -> str:
        return (
            f"{self.minutes:.0f} minutes of silence and as many of music, with pauses and without: {self.transcripts} transcripts, "
            f"{self.doubted} of them doubted, {self.sockets} sockets for 3 calls, at most {self.waiting_s:.0f} s of "
            f"audio on disk, {self.later_s:.0f} s in the end"
        )


def music(seconds: float) -> bytes:
    """A tune without end, with overtones, that fades in and out with every note."""
    at = np.arange(round(seconds * mulaw.SAMPLE_RATE)) / mulaw.SAMPLE_RATE
    notes = np.array(NOTES)[(at / NOTE_S).astype(int) % len(NOTES)]
    swell = np.minimum(1.0, 12 * (at % NOTE_S)) * np.exp(-3 * (at % NOTE_S))
    tones = sum(np.sin(2 * np.pi * notes * part * at) / part for part in (1, 2, 3))
    return mulaw.encode((4000 * swell * tones).astype(np.int16))


def pausing(tune: bytes) -> bytes:
    """The same with a rest after every two notes, for as long."""
    phrase, rest = (
        round(2 * NOTE_S * mulaw.SAMPLE_RATE),
        bytes([mulaw.SILENCE]) * round(PAUSE_S * mulaw.SAMPLE_RATE),
    )
    phrases = (tune[at : at + phrase] + rest for at in range(0, len(tune), phrase))
    return b"".join(phrases)[: len(tune)]


async def run(directory: Path, *, minutes: float = 10.0, speed: float = 6.0) -> str:
    """So many minutes of the calls' own time."""
    try:
        import pocketsphinx  # noqa: F401, PLC0415 - an extra
    except ImportError as missing:
        raise Lacking(f"{missing.name} is not installed.") from missing
    figures = Figures(minutes)
    seconds = minutes * 60
    tune = music(seconds)
    noises = (bytes([mulaw.SILENCE]) * len(tune), tune, pausing(tune))
    async with _whisper() as whisper:
        url = (await whisper.line("listening"))["url"]
        with mock.patch.multiple(
            patience, **{each: getattr(patience, each) / speed for each in WAITS[patience]}
        ):
            async with running(
                directory,
                url,
                detector=voice.load,
                replay_speed=1.5 * speed,
                twilio={"tracks": "inbound"},
            ) as setup:
                calls = [setup.call({"inbound": noise}, Script(speed=speed)) for noise in noises]
                watching = asyncio.create_task(_watch(directory, figures, seconds / speed))
                for report in await asyncio.gather(*(call.run() for call in calls)):
                    assert report.ok, report.problem
                    events = await setup.ended(report.call_sid, timeout=60)
                    said = [each.data for each in events if each.type.startswith("transcript.")]
                    figures.transcripts += len(said)
                    figures.doubted += sum(bool(each.get("suspect")) for each in said)
                    gaps = [each.data for each in events if each.type == "transcript.gap"]
                    figures.dropped += any(gap["end_ms"] < (seconds - 5) * 1000 for gap in gaps)
                watching.cancel()
        logged = [line["event"] for line in whisper.lines]
        figures.sockets = logged.count("client_connected")
        assert set(logged) <= {"listening", "client_connected", "client_left"}, f"the server failed: {logged}"
    assert figures.transcripts == figures.doubted, f"words were made up: {figures}"
    assert figures.sockets == len(noises), f"sockets were given up: {figures}"
    assert not figures.dropped, f"music was taken for speech: {figures}"
    assert figures.waiting_s <= WAITING_S, f"audio is kept: {figures}"
    return str(figures)


@contextlib.asynccontextmanager
async def _whisper() -> AsyncIterator[Process]:
    """`whisper-bridge whisper`, in a process of its own: both detectors would be too much for one."""
    command = (sys.executable, "-m", "bridge", "whisper", "--engine", "pocketsphinx", "--port", "0")
    process = Process(await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE))
    try:
        yield process
    finally:
        await process.close()


async def _watch(directory: Path, figures: Figures, duration_s: float) -> None:
    began = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(0.1)
        waiting = _waiting_s(directory)
        figures.waiting_s = max(figures.waiting_s, waiting)
        if asyncio.get_running_loop().time() - began > duration_s * 2 / 3:
            figures.later_s = max(figures.later_s, waiting)


def _waiting_s(directory: Path) -> float:
    """The audio on disk of the call that has most."""
    tracks: dict[Path, int] = {}
    for segment in directory.rglob("*.ulaw"):
        tracks[segment.parent] = tracks.get(segment.parent, 0) + SEGMENT
    return max(tracks.values(), default=0) / mulaw.SAMPLE_RATE
