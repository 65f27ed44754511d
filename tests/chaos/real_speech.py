"""Real speech through the real recogniser, with a socket that is cut every few seconds, beside the same call undisturbed.

The recogniser starts afresh on each socket, and still has to understand the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bridge.audio import voice
from bridge.local import recording, speech
from bridge.local.score import word_error_rate, words
from bridge.local.twilio.script import Script
from bridge.local.whisper.server import WhisperServer
from bridge.local.whisper.sphinx import SphinxEngine
from tests.chaos.scenario import Lacking
from tests.doubles.bridge import Setup, running

CUT_S: Final = 4.0
DISTURBED: Final = "+15550142"
HERE: Final = Path(speech.__file__).parent
DIFFERENCES: Final = 0
"""Words that may be understood otherwise."""


class Scissors:
    """A way to a server on which no connection lives longer than `CUT_S`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.cuts = 0
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """What leads to the server this way."""
        assert self._server is not None
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}{self._path}"

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Connections are taken, and cut."""
        self._server = await asyncio.start_server(self._join, "127.0.0.1", 0)
        try:
            yield
        finally:
            self._server.close()
            for writer in self._open:
                writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(self._host, self._port)
        ends = {writer, inner_writer}
        self._open |= ends
        try:
            async with asyncio.timeout(CUT_S):
                await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        except TimeoutError:
            self.cuts += 1
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


@dataclass(slots=True)
class Figures:
    """What came of it."""

    cuts: int
    spoken: int
    undisturbed: int
    disturbed: int
    differences: int

    def __str__(self) -> str:
        return (
            f"{self.cuts} cuts; of {self.spoken} words spoken {self.undisturbed} understood undisturbed, "
            f"{self.disturbed} disturbed, {self.differences} of them otherwise"
        )


async def run(directory: Path, *, seconds: float | None = None, differences: int = DIFFERENCES) -> str:
    """The demo's call, or the first `seconds` of it, at the speed of speech."""
    try:
        import pocketsphinx  # noqa: F401, PLC0415 - an extra
    except ImportError as missing:
        raise Lacking("pocketsphinx is not installed.") from missing
    tracks = recording.load([HERE / "caller.wav", HERE / "agent.wav"])
    audio = {str(name): spoken for name, spoken in tracks.items()}
    script = Script(hangup_ms=None if seconds is None else round(seconds * 1000))
    async with WhisperServer(SphinxEngine()) as whisper:
        scissors = Scissors(whisper.url)
        async with (
            scissors.opened(),
            running(
                directory,
                whisper.url,
                detector=voice.load,
                numbers=[{"number": DISTURBED, "whisper_url": scissors.url}],
            ) as setup,
        ):
            calls = [setup.call(audio, script), setup.call(audio, script, called=DISTURBED)]
            for report in await asyncio.gather(*(call.run() for call in calls)):
                assert report.ok, report.problem
            plain, cut = [await _understood(setup, call.report.call_sid) for call in calls]
            cuts = scissors.cuts
    text = (HERE / "script.txt").read_text()
    spoken = sum(len(words(line.partition(": ")[2])) for line in text.splitlines())
    apart = sum(word_error_rate(plain[track], cut[track]).errors for track in plain)
    counts = [sum(len(words(said)) for said in each.values()) for each in (plain, cut)]
    figures = Figures(cuts, spoken, counts[0], counts[1], apart)
    assert figures.cuts, "nothing was cut"
    assert figures.differences <= differences, str(figures)
    return str(figures)


async def _understood(setup: Setup, call_sid: str) -> dict[str, str]:
    """What was understood of each track, in the order of time."""
    events = await setup.ended(call_sid, timeout=60)
    assert events[-1].data["complete"], "a call did not get its last words"
    finals = [each.data for each in events if each.type == "transcript.final"]
    return {
        track: " ".join(final["text"] for final in finals if final["track"] == track)
        for track in ("inbound", "outbound")
    }
