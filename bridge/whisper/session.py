"""One track's conversation with Whisper: reads the journal at a cursor, and survives the sockets it speaks through.

Two offsets into the journal tell the whole story. `cursor` is the next byte to send. The watermark is where the
audio that is still needed begins. A new socket begins at the watermark, so whatever was sent and not finalised
when the old one dropped is sent again; and the first words survive the slowest handshake because the cursor
simply waits at 0.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bridge import log, metrics
from bridge.audio import mulaw
from bridge.audio.journal import Journal, Unreadable
from bridge.audio.tick import Tick
from bridge.audio.upsample import FRAME, HISTORY
from bridge.transcript.heard import Heard, place
from bridge.whisper.conversation import REJECTION_S, Conversation, Ending
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.pace import Pace
from bridge.whisper.protocol import Transcription
from bridge.whisper.socket import ConnectFailed, WhisperSocket
from bridge.whisper.watermark import Watermark

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

OPEN_TIMEOUT_S: Final = 300.0
"""A deployment scaled to zero lets the handshake hang until a replica has booted; 253 s have been seen."""

FALLBACK_TIMEOUT_S: Final = 15.0
"""The same while there is another endpoint to turn to."""

LAST_TRIES: Final = 4
"""Sockets that were sent all audio and brought no new final, before the last words are given up."""

UNREADABLE_S: Final = 5.0
"""The journal's disk may fail this long before what cannot be read is given up."""

MARGIN: Final = mulaw.SAMPLE_RATE
"""Samples kept before the watermark: the filter's memory, and word times that are a little off."""

BACKOFF_FIRST_S: Final = 0.25
BACKOFF_LONGEST_S: Final = 8.0
FORBIDDEN_BACKOFF_S: Final = 60.0
"""A refused key does not become valid by asking often."""

TRIES_PER_ENDPOINT: Final = 2
"""Failures in a row after which the fallback is tried, if there is one; then the first choice again."""

_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a session tells."""

    final: Callable[[Heard, int], Awaitable[None]]
    """A final and the watermark that it makes; returns once both are stored."""
    partial: Callable[[Heard], None]
    lost: Callable[[int, int, str], None]
    """Audio between two offsets was given up, and why."""


class Session:
    """Transcribes one journal to its end. A `Source` of the tick."""

    def __init__(
        self,
        journal: Journal,
        *,
        tick: Tick,
        endpoints: tuple[Endpoint, ...],
        whisper: "WhisperConfig",
        listener: Listener,
        logger: log.Logger = _logger,
    ) -> None:
        self.journal = journal
        self.cursor = 0
        self.watermark = Watermark()
        self.resent_until = 0
        """Audio before this offset was sent more than once: what is heard in it is recovered."""
        self.gave_up = False
        """The last words could not be had from Whisper; `Listener.lost` was told where they are."""
        self._tick = tick
        self._endpoints = endpoints
        self._whisper = whisper
        self._listener = listener
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._conversation: Conversation | None = None
        self._pace = Pace(whisper.replay_speed, 0)
        self._base = 0  # offset of this socket's first sample
        self._trim_before = 0  # what this socket hears before it was published by an earlier one
        self._storing = False  # a final is on its way to the outbox
        self._audio_end: int | None = None  # where the audio ends, once it is complete
        self._unreadable_at: float | None = None
        self._last_text = ""

    async def run(self) -> None:
        """Transcribe until all audio is settled, or given up; returns only then."""
        failures = last_tries = 0
        while True:
            endpoint = self._endpoints[failures // TRIES_PER_ENDPOINT % len(self._endpoints)]
            try:
                socket = await WhisperSocket.connect(
                    endpoint.url, api_key=endpoint.api_key, timeout=self._open_timeout(failures)
                )
            except ConnectFailed as error:
                metrics.WHISPER_CONNECTS.labels(str(error.status or "unreachable")).inc()
                failures += 1
                if failures == 1:
                    self._logger.warning("whisper_unreachable", error=str(error))
                await asyncio.sleep(_backoff(failures, error.status))
                continue
            metrics.WHISPER_CONNECTS.labels("open").inc()
            opened_at, settled = self._loop.time(), self.watermark.offset
            conversation = self._attach(socket, endpoint)
            try:
                ending = await conversation.run()
            finally:
                self._detach()
            if ending is Ending.FINISHED:
                return
            if conversation.audio_ended:
                if not self.watermark.spoken:  # all that was said is finalised
                    return
                last_tries = last_tries + 1 if self.watermark.offset == settled else 0
                if last_tries == LAST_TRIES:
                    self._give_up()
                    return
            failures = 0 if self._loop.time() - opened_at > REJECTION_S else failures + 1
            if ending is not Ending.REJECTED or failures > 1:  # the other dialect is tried at once
                await asyncio.sleep(_backoff(failures, None))

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
        tail += -(self.journal.end + tail) % FRAME
        self.journal.append(bytes([mulaw.SILENCE]) * tail)
        self.heard()

    # What the tick calls.

    def due(self, now: float) -> int | None:
        """How many frames the journal has, pacing allows and the socket takes. See `tick.Source`."""
        frames = (self.journal.end - self.cursor) // FRAME
        if self._conversation is None or frames <= 0:
            return None
        if self.cursor < self.journal.start:
            self._conversation.abort()  # the journal's limit has overtaken us; the next socket begins after it
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
        if not self._storing and self._conversation.caught_up:
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

    def _attach(self, socket: WhisperSocket, endpoint: Endpoint) -> Conversation:
        """Begin a conversation at the watermark."""
        mark, start = self.watermark, self.journal.start
        if start > mark.offset:
            self._listener.lost(mark.offset, start, "journal_full")
            mark.lost(start)
        mark.restart()
        self._unreadable_at = None
        self.resent_until = max(self.resent_until, self.cursor)
        self._trim_before = mark.offset
        # Never past the last frame, so that there is a frame to send before the end of audio.
        self._base = self.cursor = min(mark.offset, max(self.journal.end - FRAME, 0)) // FRAME * FRAME
        self._pace = Pace(self._whisper.replay_speed, self._loop.time())
        self._conversation = Conversation(socket, endpoint, self._whisper, self._transcription, self._logger)
        self._logger.info("whisper_open", dialect=endpoint.dialect.value, at_ms=self._base // 8)
        self.heard()
        return self._conversation

    def _detach(self) -> None:
        self._conversation = None
        self._tick.forget(self)

    async def _transcription(self, said: Transcription) -> None:
        first_of_replay = self._conversation is not None and not self._conversation.finals
        heard = place(
            said,
            base=self._base,
            published=self._trim_before,
            default=self._untimed_span(),
            last_text=self._last_text if first_of_replay and self._base < self.resent_until else "",
            limit=self.cursor if self._audio_end is None else min(self.cursor, self._audio_end),
        )
        if heard is None:
            return
        if not said.is_final:
            self._listener.partial(heard)
            return
        self._storing = True
        await self._listener.final(heard, max(self.watermark.offset, heard.end))
        self._storing = False
        self._last_text = heard.text
        self.watermark.finalised(heard.end)
        self.journal.release(self.watermark.offset - MARGIN)

    def _untimed_span(self) -> tuple[int, int]:
        """Where a final lies of which the server does not say it: after the last one, before the latest silence."""
        begin = self.watermark.offset
        silence_ms = self._whisper.vad.min_silence_duration_ms + 1000
        return begin, max(begin, self.cursor - silence_ms * mulaw.SAMPLE_RATE // 1000)

    def _give_up(self) -> None:
        """Nothing is dropped silently: somebody may have spoken since the last final, so that is a gap."""
        self._logger.error("whisper_gave_up", tries=LAST_TRIES)
        self.gave_up = True
        end = self.journal.end if self._audio_end is None else self._audio_end
        self._listener.lost(self.watermark.offset, end, "whisper_silent")

    def _open_timeout(self, failures: int) -> float:
        """The first round asks every endpoint briefly, if there are several; then there is time for a cold start."""
        first_round = failures < TRIES_PER_ENDPOINT * len(self._endpoints)
        return FALLBACK_TIMEOUT_S if first_round and len(self._endpoints) > 1 else OPEN_TIMEOUT_S


def _backoff(failures: int, status: int | None) -> float:
    """Seconds to wait: full jitter under a doubling bound, and longer where only a person can help."""
    if status in {401, 403}:
        return FORBIDDEN_BACKOFF_S
    bound = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 16))
    return random.uniform(0, bound)  # noqa: S311 - jitter, not cryptography
