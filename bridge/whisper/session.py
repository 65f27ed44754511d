"""One track's conversation with Whisper: reads the journal at a cursor, and survives the sockets it speaks through.

Two offsets into the journal tell the whole story. `cursor` is the next byte to send. The watermark is where the
audio that is still needed begins. A new socket begins at the watermark, so whatever was sent and not finalised
when the old one dropped is sent again; and the first words survive the slowest handshake because the cursor
simply waits. A successor takes over in the same way as after a drop, only that nothing has to be waited for.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bridge import log
from bridge.audio import mulaw
from bridge.audio.journal import Journal, Unreadable
from bridge.audio.tick import Tick
from bridge.audio.upsample import FRAME, HISTORY
from bridge.transcript.loudness import Loudness
from bridge.whisper.conversation import Conversation, Ending
from bridge.whisper.dialler import Dialler, Line
from bridge.whisper.ear import Listen
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.pace import Pace
from bridge.whisper.protocol import Dialect, Transcription
from bridge.whisper.scribe import MARGIN, Listener, Scribe
from bridge.whisper.watermark import Watermark
from bridge.whisper.witness import Hearing

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

LAST_TRIES: Final = 12
"""Sockets that were sent all audio and brought no new final, before the last words are given up."""

ANSWERED: Final = 3
"""A socket on which the server has taken note of the end of audio, and said nothing, counts for so many."""

HASTY: Final = mulaw.SAMPLE_RATE // 2
"""Samples of speech without a final that make `finished` doubtful, if it is the first thing said at the end."""

HASTY_TAIL: Final = 30 * mulaw.SAMPLE_RATE
"""Beyond this much audio without a final it was no last utterance: a song, or a voice far away."""

STUCK: Final = 2
"""Sockets in a row that broke before anything was settled. The next one is not sent the silence before the first speech
again: sockets that live for seconds would never get past a long one."""

UNREADABLE_S: Final = 5.0
"""The journal's disk may fail this long before what cannot be read is given up."""

PAUSE_S: Final = 30.0
"""How long a successor waits for a pause or a final: no utterance is longer."""

_logger = log.get(__name__)


class Session:
    """Transcribes one journal to its end, from `start` on. A `Source` of the tick.

    `last_text` is what was published of it last, before `start`: a socket may say its last word again.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        tick: Tick,
        listen: Listen,
        endpoints: tuple[Endpoint, ...],
        whisper: "WhisperConfig",
        listener: Listener,
        start: int = 0,
        last_text: str = "",
        logger: log.Logger = _logger,
    ) -> None:
        self.journal = journal
        self.cursor = start
        self.watermark = Watermark(start)
        self.loudness = Loudness()
        self.resent_until = journal.end
        """Audio before this offset was sent more than once, or by an earlier process: what is heard in it is recovered."""
        self.gave_up = False
        """The last words could not be had from Whisper; `Listener.lost` was told where they are."""
        self._tick = tick
        self._whisper = whisper
        self._listener = listener
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._dialler = Dialler(endpoints, logger)
        self._scribe = Scribe(journal, self.watermark, listener, last_text)
        self._conversation: Conversation | None = None
        self._hearing = Hearing(
            journal, self.watermark, self._dialler, listen=listen, tick=tick, whisper=whisper, logger=logger
        )
        self._refused: tuple[Endpoint, Dialect] | None = None  # the latest start message that was not taken
        self._pace = Pace(whisper.replay_speed, 0)
        self._audio_end: int | None = None  # where the audio ends, once it is complete
        self._unreadable_at: float | None = None
        self._stuck = self._last_tries = 0
        self._doubted_at = -1  # `finished` was not believed once when the watermark was here

    async def run(self) -> None:
        """Transcribe until all audio is settled, or given up; returns only then."""
        try:
            while True:
                line = await self._dialler.open()
                settled = self.watermark.offset
                conversation = self._attach(line)
                try:
                    ending = await conversation.run()
                finally:
                    await self._detach()
                if await self._is_over(conversation, ending, settled):
                    return
                self._stuck = 0 if self.watermark.offset > settled else self._stuck + 1
                worked = not self._stuck or (conversation.answered and ending is not Ending.ABORTED)
                self._dialler.ended(
                    line, dropped=ending is Ending.DROPPED, worked=worked, idle=not self.watermark.spoken
                )
                if ending is Ending.REJECTED:
                    if self._refused is None:
                        self._dialler.ask_at_once()
                    self._refused = line.endpoint, conversation.dialect
        finally:
            await self._dialler.close()

    def heard(self) -> None:
        """Say that the journal has grown."""
        if self._conversation is not None and self.journal.end - self.cursor >= FRAME:
            self._tick.ready(self)

    def finish(self) -> None:
        """Say that the journal will not grow any more: `run` ends when all of it is settled.

        Silence is added until the last sample has left the filter's memory and the last frame is whole.
        """
        if self._audio_end is not None:
            return
        self._audio_end = self.journal.end
        tail = HISTORY // 2 + 1
        self.journal.fill(tail + -(self.journal.end + tail) % FRAME)
        self.heard()

    # What the tick calls.

    def due(self, now: float) -> int | None:
        """How many frames the journal has, pacing allows and the socket takes. See `tick.Source`."""
        frames = (self.journal.end - self.cursor) // FRAME
        if self._conversation is None or frames <= 0:
            return None
        if self.cursor < self.journal.start:
            self._conversation.abort("journal_full")  # its limit has overtaken us; the next begins after it
            return None
        if not self._conversation.writable:
            return 0
        return min(frames, self._pace.allowed(now) // FRAME)

    def send(self, frames: NDArray[np.int16], peak: int) -> None:
        """Send frames and move the cursor. See `tick.Source`."""
        if self._conversation is None:
            return
        self._unreadable_at = None
        self._conversation.send(frames)
        begin = self.cursor
        self.cursor += len(frames) * FRAME
        self._pace.spend(self.cursor - begin)
        self.watermark.sent(begin, self.cursor, peak)
        self.loudness.sent(begin, self.cursor, peak)
        if not self._scribe.busy and self._conversation.caught_up:
            self.watermark.age(self.cursor)
            self.journal.release(self.watermark.offset - MARGIN)
        if self._audio_end is not None and self.cursor >= self.journal.end:
            self._conversation.end_audio()

    def unreadable(self, error: Unreadable) -> None:
        """The journal could not be read at the cursor. See `tick.Source`."""
        now = self._loop.time()
        if self._unreadable_at is None:
            self._unreadable_at = now
            self._logger.error("journal_unreadable", error=str(error))
        elif now - self._unreadable_at > UNREADABLE_S:
            self._unreadable_at = None
            start, end = self.journal.give_up(error.segment)
            if end > self.watermark.offset:
                self._listener.lost(max(start, self.watermark.offset), end, "journal_unreadable")

    # What the conversation calls.

    async def understood(self, said: Transcription) -> None:
        """The server understood something. See `conversation.Listening`."""
        limit = self.cursor if self._audio_end is None else min(self.cursor, self._audio_end)
        await self._scribe.hear(said, limit)
        if said.text:
            self._hearing.cancel()
        if said.is_final and not self._scribe.busy:
            self._make_way(pause=True)

    async def look(self, now: float) -> None:
        """See to what is due without anything being said. See `conversation.Listening`."""
        await self._scribe.publish()
        if self._conversation is None or self._conversation.audio_ended:
            return
        due = self._scribe.patience.mark(now, self.cursor)
        if due is not None and not self._scribe.busy:
            self._hearing.begin(due, self._conversation.dialect, self._scribe.patience, self._leave)
        self._make_way(pause=not self.watermark.spoken)

    def _leave(self) -> None:
        """A witness has understood what the present socket said nothing about."""
        if self._conversation is not None:
            self._conversation.abort("no_final")
        self._doubt(self.watermark.offset)

    def _doubt(self, end: int) -> None:
        """Nothing is dropped silently: loud audio that was settled without a final becomes a gap up to `end`.

        So it is told once a witness shows that the socket that heard it was useless, or at the end of a call in
        which no server ever understood a word. A final that comes after it proves a working server, and music.
        """
        if self.watermark.doubted is not None:
            self._listener.lost(self.watermark.doubted, end, "whisper_silent")
            self.watermark.doubted = None

    def _make_way(self, *, pause: bool) -> None:
        """Let a successor take over if there is one. It begins at the watermark: in a pause nothing is sent twice."""
        if self._conversation is None or self._conversation.audio_ended:
            return
        ready_s = self._dialler.successor()
        if ready_s is not None and (pause or ready_s > PAUSE_S):
            self._conversation.abort("successor")

    def _attach(self, line: Line) -> Conversation:
        """Begin a conversation at the watermark."""
        mark, start = self.watermark, self.journal.start
        if start > mark.offset:
            self._listener.lost(mark.offset, start, "journal_full")
            mark.lost(start)
        if self._stuck >= STUCK:
            mark.skip_quiet(self.cursor)
        mark.restart()
        self._unreadable_at = None
        self.resent_until = max(self.resent_until, self.cursor)
        # Never past the last frame, so that there is a frame to send before the end of audio.
        base = self.cursor = min(mark.offset, max(self.journal.end - FRAME, 0)) // FRAME * FRAME
        self._scribe.begin(line.endpoint, base, again=base < self.resent_until)
        self._pace = Pace(self._whisper.replay_speed, self._loop.time())
        dialect = line.endpoint.dialect_after(self._refused)
        self._conversation = Conversation(
            line.socket, line.endpoint, self._whisper, self, self._logger, dialect=dialect
        )
        self._logger.info("whisper_open", host=line.endpoint.host, dialect=dialect.value, at_ms=base // 8)
        self.heard()
        return self._conversation

    async def _detach(self) -> None:
        self._conversation = None
        self._tick.forget(self)
        await self._hearing.close()

    async def _is_over(self, conversation: Conversation, ending: Ending, settled: int) -> bool:
        """Whether everything is settled or given up, now that a conversation has ended."""
        if ending is Ending.FINISHED:
            await self._scribe.publish(all_=True)
            if not await self._is_doubtful(conversation):
                if not self._scribe.has_written:
                    self._doubt(self.cursor)
                return True
        if not conversation.audio_ended:
            return False
        if not self.watermark.spoken:  # all that was said is finalised
            return True
        answered = ending is not Ending.DROPPED and conversation.acknowledged
        tries = ANSWERED if answered else 1
        self._last_tries = self._last_tries + tries if self.watermark.offset == settled else 0
        if self._last_tries < LAST_TRIES:
            return False
        await self._scribe.publish(all_=True)
        await self._hearing.listen(self.cursor)
        if self.watermark.spoken:  # nothing is dropped silently
            self.gave_up = True
            end = self.cursor if self._audio_end is None else self._audio_end
            self._logger.error("whisper_gave_up", ms=(end - self.watermark.offset) // 8)
            self._listener.lost(self.watermark.offset, end, "whisper_silent")
            self.watermark.lost(end)
        return True

    async def _is_doubtful(self, conversation: Conversation) -> bool:
        """Whether the server said `finished` too early, as far as one can tell; it is asked once more then."""
        tail = self.cursor - self.watermark.offset
        if self._doubted_at == self.watermark.offset or conversation.finals_at_end or tail > HASTY_TAIL:
            return False
        await self._hearing.listen(self.cursor)
        if (unheard := self.watermark.loud(self.cursor)) < HASTY:
            return False
        self._doubted_at = self.watermark.offset
        self._logger.warning("whisper_finished_early", unheard_ms=unheard // 8)
        return True
