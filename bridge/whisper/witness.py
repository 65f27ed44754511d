"""What becomes of loud audio that the present socket said nothing about.

Music and a server that hears nothing any more look the same from outside: loud audio, pings answered, no final. So
somebody listens to the audio; what is no speech needs no final. Of speech a witness is asked: a socket of its own that
is sent the same. If it understands something, the present socket is useless. To cut that one without being sure, and
send the audio again, would delay what is said next: not all speech can be understood.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bridge import log
from bridge.audio import mulaw
from bridge.audio.journal import Journal, Unreadable
from bridge.audio.tick import Tick
from bridge.audio.upsample import FRAME
from bridge.whisper.conversation import Conversation
from bridge.whisper.dialler import Dialler, Line
from bridge.whisper.ear import Listen
from bridge.whisper.pace import Pace
from bridge.whisper.patience import SPOKEN, Patience
from bridge.whisper.protocol import Dialect, Transcription
from bridge.whisper.watermark import Watermark

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

ENOUGH: Final = 5 * mulaw.SAMPLE_RATE
"""Samples that are worth being listened to: with the second before them the detector does a fifth of its work twice."""


class Witness:
    """Hears one stretch of a journal, and publishes nothing. A `Source` of the tick."""

    def __init__(
        self,
        journal: Journal,
        span: tuple[int, int],
        *,
        line: Line,
        dialect: Dialect,
        tick: Tick,
        whisper: "WhisperConfig",
        logger: log.Logger,
    ) -> None:
        self.journal = journal
        self.cursor = max(span[0], journal.start) // FRAME * FRAME
        self.understands = False
        self._end = span[1]
        self._tick = tick
        self._pace = Pace(whisper.replay_speed, asyncio.get_running_loop().time())
        self._conversation = Conversation(line.socket, line.endpoint, whisper, self, logger, dialect=dialect)

    async def run(self) -> bool:
        """Hear it. Returns whether the server understood a word in it; the socket is closed then."""
        self._tick.ready(self)
        try:
            await self._conversation.run()
        finally:
            self._tick.forget(self)
        return self.understands

    # What the tick calls.

    def due(self, now: float) -> int | None:
        """How many frames are left, pacing allows and the socket takes. See `tick.Source`."""
        if self._conversation.audio_ended:
            return None
        if self.cursor < self.journal.start:
            self._conversation.abort("settled")  # nobody needs to know any more
            return None
        if not self._conversation.writable:
            return 0
        return min(-(-(self._end - self.cursor) // FRAME), self._pace.allowed(now) // FRAME)

    def send(self, frames: NDArray[np.int16], peak: int) -> None:  # noqa: ARG002 - how loud it is was known before
        """Send frames. See `tick.Source`."""
        self._conversation.send(frames)
        self.cursor += len(frames) * FRAME
        self._pace.spend(len(frames) * FRAME)
        if self.cursor >= self._end:
            self._conversation.end_audio()

    def unreadable(self, error: Unreadable) -> None:  # noqa: ARG002 - the session says it
        """The journal could not be read: then there is no witness. See `tick.Source`."""
        self._conversation.abort("unreadable")

    # What the conversation calls.

    async def understood(self, said: Transcription) -> None:
        """The server understood something. See `conversation.Listening`."""
        if said.is_final and said.text:
            self.understands = True
            self._conversation.abort("understood")

    async def look(self, now: float) -> None:
        """See `conversation.Listening`."""


class Hearing:
    """Sees to it for one session, one stretch of audio after the other. `close` ends what it has begun."""

    def __init__(
        self,
        journal: Journal,
        watermark: Watermark,
        dialler: Dialler,
        *,
        listen: Listen,
        tick: Tick,
        whisper: "WhisperConfig",
        logger: log.Logger,
    ) -> None:
        self._journal = journal
        self._watermark = watermark
        self._dialler = dialler
        self._listen = listen
        self._tick = tick
        self._whisper = whisper
        self._logger = logger
        self._task: asyncio.Task[None] | None = None

    def begin(self, due: int, dialect: Dialect, patience: Patience, useless: Callable[[], None]) -> None:
        """A final is due for speech before the offset `due`: find out why it is missing, unless that is being done.

        If a witness understands a word, `useless` is called; if not, nothing would be gained by leaving the present
        socket, and `patience` grows.
        """
        if self._task is not None and not self._task.done():
            return
        unheard = self._watermark.unheard(due)
        if (unheard and unheard[1] - unheard[0] >= ENOUGH) or self._watermark.speech(due) >= SPOKEN:
            self._task = asyncio.create_task(self._hear(due, dialect, patience, useless))

    async def listen(self, before: int) -> None:
        """Find out what of the loud audio before an offset is speech; what cannot be read may be."""
        span = self._watermark.unheard(before)
        if span is None:
            return
        try:
            audio = self._journal.read(span[0], span[1] - span[0])
        except Unreadable:
            return
        speech = await self._listen(audio)
        self._watermark.listened(span, [(span[0] + begin, span[0] + end) for begin, end in speech])

    def cancel(self) -> None:
        """The present socket has proved that it hears."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """The present socket is left."""
        self.cancel()
        task, self._task = self._task, None
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def _hear(
        self, due: int, dialect: Dialect, patience: Patience, useless: Callable[[], None]
    ) -> None:
        await self.listen(due)
        if self._watermark.speech(due) < SPOKEN:
            return
        line = await self._dialler.second()
        if line is None:
            patience.restart()  # nobody to ask now
            return
        witness = Witness(
            self._journal,
            (self._watermark.unanswered, due),
            line=line,
            dialect=dialect,
            tick=self._tick,
            whisper=self._whisper,
            logger=self._logger,
        )
        if await witness.run():
            useless()
        else:
            patience.in_vain()
