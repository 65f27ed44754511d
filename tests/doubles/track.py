"""A session at work on a journal: audio goes in by hand, what it tells is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bridge.audio.journal import Journal
from bridge.audio.tick import Tick
from bridge.audio.voice import Stretches
from bridge.config import WhisperConfig
from bridge.transcript.heard import Heard
from bridge.whisper.ear import Listen
from bridge.whisper.endpoint import Endpoint, Endpoints
from bridge.whisper.scribe import Listener
from bridge.whisper.session import Session
from tests.doubles.numbered import VOCABULARY, NumberedWhisper


@dataclass
class Track:
    """A session at work on a journal, and what it tells."""

    session: Session
    journal: Journal
    finals: list[Heard] = field(default_factory=list)
    partials: list[Heard] = field(default_factory=list)
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set the outbox is down."""
    lost: list[tuple[int, int, str]] = field(default_factory=list)

    def hear(self, audio: bytes) -> None:
        for start in range(0, len(audio), 160):
            self.journal.append(audio[start : start + 160])
            self.session.heard()

    async def live(self, audio: bytes, speed: float) -> None:
        """Audio as Twilio brings it, but `speed` times faster."""
        began = asyncio.get_running_loop().time()
        for number, start in enumerate(range(0, len(audio), 160)):
            self.journal.append(audio[start : start + 160])
            self.session.heard()
            await asyncio.sleep(began + (number + 1) * 0.02 / speed - asyncio.get_running_loop().time())

    async def to_the_end(self, timeout: float = 20) -> None:
        self.session.finish()
        async with asyncio.timeout(timeout):
            await self._task

    _task: asyncio.Task[None] = field(init=False)

    @property
    def words(self) -> list[str]:
        return [word for final in self.finals for word in final.text.split()]


async def everything(audio: bytes) -> Stretches:
    """All of it is speech."""
    return [(0, len(audio))]


@asynccontextmanager
async def track(
    directory: Path,
    server: NumberedWhisper | str,
    config: WhisperConfig | None = None,
    endpoints: tuple[Endpoint, ...] | None = None,
    *,
    replay_speed: float = 100.0,
    listen: Listen = everything,
    audio: bytes = b"",
    start: int = 0,
) -> AsyncIterator[Track]:
    """Audio is sent again as fast as the sockets take it, unless `replay_speed` says otherwise.

    `audio` is in the journal already, settled up to `start`.
    """
    url = server if isinstance(server, str) else server.url
    settings = (config or WhisperConfig(url=url)).model_copy(update={"replay_speed": replay_speed})
    tick = Tick()

    async def final(heard: Heard, settled: int) -> None:
        assert settled >= heard.end
        await made.stored.wait()
        made.finals.append(heard)

    made: Track
    partials: list[Heard] = []
    journal = Journal(directory / "track")
    journal.append(audio)
    session = Session(
        journal,
        tick=tick,
        listen=listen,
        endpoints=endpoints or Endpoints().of(settings.model_copy(update={"url": url})),
        whisper=settings,
        listener=Listener(
            final=final,
            partial=partials.append,
            lost=lambda start, end, why: made.lost.append((start, end, why)),
        ),
        start=start,
    )
    made = Track(session, session.journal, partials=partials)
    made.stored.set()
    made._task = asyncio.create_task(session.run())
    try:
        yield made
    finally:
        made._task.cancel()
        await asyncio.gather(made._task, return_exceptions=True)
        tick.close()
        made.journal.close(delete=True)


def numbered(numbers: range) -> list[str]:
    """What a server understands of `speech(numbers)`."""
    return [f"w{number % VOCABULARY}" for number in numbers]
