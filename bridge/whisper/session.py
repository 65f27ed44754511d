"""One track's conversation with Whisper: reads the journal at a cursor, and survives the sockets it speaks through.

Two offsets into the journal tell the whole story. `cursor` is the next byte to send. `settled` is where the
audio that is still needed begins: everything before it is finalised and stored, or proven silent. A new socket
begins at `settled`, so whatever was sent and not finalised when the old one dropped is sent again; and the
first words survive the slowest handshake because the cursor simply waits at 0.
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
from bridge.audio.journal import Journal
from bridge.audio.tick import Tick
from bridge.audio.upsample import FRAME, HISTORY
from bridge.transcript.heard import Heard, place
from bridge.whisper import protocol
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.pace import Pace
from bridge.whisper.protocol import EndOfAudio, Ignored, ServerError, Transcription
from bridge.whisper.socket import ConnectFailed, SocketClosed, WhisperSocket

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

OPEN_TIMEOUT_S: Final = 300.0
"""A deployment scaled to zero lets the handshake hang until a replica has booted; 253 s have been seen."""

REJECTION_S: Final = 5.0
"""A refused start message closes the socket within a round trip; a close after this is something else."""

FINISH_TIMEOUT_S: Final = 8.0
"""Silence of the server after `end_audio` after which the socket is given up."""

SERVER_BUFFER_S: Final = 45.0
"""Audio older than this has left a healthy server's buffer: it holds 30 s at most; the rest is for lag."""

MARGIN: Final = mulaw.SAMPLE_RATE
"""Samples kept before `settled`: the filter's memory, and word times that are a little off."""

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
    """A final and the offset up to which audio is settled by it; returns once both are stored."""
    partial: Callable[[Heard], None]
    lost: Callable[[int, int], None]
    """Audio between two offsets was given up, because the journal had reached its limit."""


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
        self.settled = 0
        self.resent_until = 0
        """Audio before this offset was sent more than once: what is heard in it is recovered."""
        self._tick = tick
        self._endpoints = endpoints
        self._whisper = whisper
        self._listener = listener
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._socket: WhisperSocket | None = None
        self._pace = Pace(whisper.replay_speed, 0)
        self._base = 0  # offset of this socket's first sample
        self._trim_before = 0  # what this socket hears before it was published by an earlier one
        self._audio_complete = False
        self._end_sent = False
        self._patience: asyncio.Timeout | None = None
        self._silent_ends = 0  # sockets in a row that never answered `end_audio`
        self._last_final: Transcription | None = None
        self._last_text = ""

    async def run(self) -> None:
        """Transcribe until all audio is settled; returns only then."""
        failures = 0
        while not (self._audio_complete and self.journal.end == 0):
            endpoint = self._endpoints[failures // TRIES_PER_ENDPOINT % len(self._endpoints)]
            status = None
            opened_at = self._loop.time()
            try:
                socket = await WhisperSocket.connect(
                    endpoint.url, api_key=endpoint.api_key, timeout=OPEN_TIMEOUT_S
                )
            except ConnectFailed as error:
                status = error.status
                metrics.WHISPER_CONNECTS.labels(str(status or "unreachable")).inc()
                failures += 1
                if failures == 1:
                    self._logger.warning("whisper_unreachable", error=str(error))
            else:
                metrics.WHISPER_CONNECTS.labels("open").inc()
                opened_at = self._loop.time()
                if await self._speak_through(socket, endpoint):
                    return
                failures = 0 if self._loop.time() - opened_at > REJECTION_S else failures + 1
            if failures > 1 or status is not None:
                await asyncio.sleep(_backoff(failures, status))

    def heard(self) -> None:
        """Say that the journal has grown."""
        if self._socket is not None and self.journal.end - self.cursor >= FRAME:
            self._tick.ready(self)

    def finish(self) -> None:
        """Say that the journal will not grow any more: `run` ends when all of it is settled.

        Silence is added until the last sample has left the filter's memory and the last frame is whole.
        """
        if self._audio_complete:
            return
        self._audio_complete = True
        if self.journal.end:
            tail = HISTORY // 2 + 1
            tail += -(self.journal.end + tail) % FRAME
            self.journal.append(bytes([mulaw.SILENCE]) * tail)
            self.heard()
            self._end_audio_when_all_is_sent()

    # What the tick calls.

    def due(self, now: float) -> int | None:
        """How many frames the journal has, pacing allows and the socket takes. See `tick.Source`."""
        frames = (self.journal.end - self.cursor) // FRAME
        if self._socket is None or frames <= 0:
            return None
        if not self._socket.writable:
            return 0
        return min(frames, self._pace.allowed(now) // FRAME)

    def send(self, frames: NDArray[np.int16]) -> None:
        """Send frames and move the cursor. See `tick.Source`."""
        if self._socket is None:
            return
        for frame in frames:
            self._socket.send_frame(frame.tobytes())
        sent = len(frames) * FRAME
        self.cursor += sent
        self._pace.spend(sent)
        silent_before = self.cursor - int(SERVER_BUFFER_S * mulaw.SAMPLE_RATE)
        if silent_before > max(self._base, self.settled):
            self._settle(silent_before)
        self._end_audio_when_all_is_sent()

    # One socket's life.

    async def _speak_through(self, socket: WhisperSocket, endpoint: Endpoint) -> bool:
        """Send and listen until the socket ends; True when the session is complete."""
        dialect = endpoint.dialect
        opened_at = self._loop.time()
        try:
            with metrics.WHISPER_OPEN.track_inprogress():
                socket.send_text(protocol.start_message(dialect, self._whisper))
                self._attach(socket)
                self._logger.info("whisper_open", dialect=dialect.value, at_ms=self._base // 8)
                complete = await self._listen(socket, endpoint, dialect)
        except SocketClosed as closed:
            young = self._loop.time() - opened_at < REJECTION_S
            if young and closed.code in protocol.REJECTED_CLOSE_CODES:
                endpoint.rejected(dialect)
            metrics.WHISPER_DROPS.labels(str(closed.code)).inc()
            self._logger.warning("whisper_dropped", code=closed.code, reason=closed.reason[:80])
            return False
        finally:
            self._socket = None
            self._tick.forget(self)
            await socket.close()
        if not complete:
            metrics.WHISPER_DROPS.labels("silent_end").inc()
            self._logger.warning("whisper_silent_at_end", waited_s=FINISH_TIMEOUT_S)
        return complete

    async def _listen(self, socket: WhisperSocket, endpoint: Endpoint, dialect: protocol.Dialect) -> bool:
        while True:
            try:
                async with asyncio.timeout(FINISH_TIMEOUT_S if self._end_sent else None) as self._patience:
                    message = protocol.parse(await socket.receive())
            except TimeoutError:
                self._silent_ends += 1
                return self._silent_ends > 1
            finally:
                self._patience = None
            metrics.WHISPER_MESSAGES.labels(message.kind).inc()
            if isinstance(message, Transcription | EndOfAudio):
                endpoint.accepted(dialect)
            if isinstance(message, Transcription):
                await self._transcription(message)
            elif isinstance(message, EndOfAudio) and message.finished and self._end_sent:
                return True
            elif isinstance(message, ServerError):
                self._logger.warning("whisper_error", reason=message.reason)
                if endpoint.rejected(dialect):
                    return False
            elif isinstance(message, Ignored):
                self._logger.debug("whisper_message_ignored", kind=message.kind)

    def _attach(self, socket: WhisperSocket) -> None:
        if self.journal.start > self.settled:
            self._listener.lost(self.settled, self.journal.start)
            self.settled = self.journal.start
        self.resent_until = max(self.resent_until, self.cursor)
        self._trim_before = self.settled
        self._last_final = None
        self._base = self.cursor = self.settled // FRAME * FRAME
        self._pace = Pace(self._whisper.replay_speed, self._loop.time())
        self._end_sent = False
        self._socket = socket
        self.heard()
        self._end_audio_when_all_is_sent()

    def _end_audio_when_all_is_sent(self) -> None:
        if self._audio_complete and self._socket and not self._end_sent and self.cursor >= self.journal.end:
            self._socket.send_text(protocol.END_AUDIO)
            self._end_sent = True
            if self._patience is not None:
                self._patience.reschedule(self._loop.time() + FINISH_TIMEOUT_S)

    async def _transcription(self, said: Transcription) -> None:
        if said.is_final and said == self._last_final and all(s.start_s is not None for s in said.segments):
            return  # a server that repeats itself: the same words are not said twice at the same time
        heard = place(
            said,
            base=self._base,
            published=self._trim_before,
            default=self._untimed_span(),
            last_text=self._last_text if self._base < self.resent_until else "",
            limit=self.cursor,
        )
        if heard is None:
            return
        if not said.is_final:
            self._listener.partial(heard)
            return
        settled = max(self.settled, heard.end)
        await self._listener.final(heard, settled)
        self._last_final, self._last_text = said, heard.text
        self._settle(settled)

    def _untimed_span(self) -> tuple[int, int]:
        """Where a final lies of which the server does not say it: after the last one, before the latest silence."""
        silence_ms = self._whisper.vad.min_silence_duration_ms + 1000
        return self.settled, max(self.settled, self.cursor - silence_ms * mulaw.SAMPLE_RATE // 1000)

    def _settle(self, offset: int) -> None:
        self.settled = max(self.settled, offset)
        self.journal.release(self.settled - MARGIN)


def _backoff(failures: int, status: int | None) -> float:
    """Seconds to wait: full jitter under a doubling bound, and longer where only a person can help."""
    if status in {401, 403}:
        return FORBIDDEN_BACKOFF_S
    bound = min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(failures, 16))
    return random.uniform(0, bound)  # noqa: S311 - jitter, not cryptography
