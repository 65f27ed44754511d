"""What one socket and its server say to each other, from the start message to `finished`."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bridge import log, metrics
from bridge.whisper import protocol
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.protocol import EndOfAudio, ServerError, Transcription
from bridge.whisper.socket import SocketClosed, WhisperSocket

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

REJECTION_S: Final = 5.0
"""A refused start message is answered within a round trip; what goes wrong after this has other reasons."""

ANSWER_S: Final = 8.0
"""Silence after `end_audio`, or after the last final that followed it, that ends the waiting."""

ACKNOWLEDGED_S: Final = 30.0
"""The same once the server has acknowledged `end_audio`: the last utterance may be a long one."""


class Ending(Enum):
    """How a conversation ended."""

    FINISHED = auto()
    """The server has said everything there is."""
    SILENT = auto()
    """It stopped answering after the end of audio without having said that it is finished."""
    REJECTED = auto()
    """It does not take this dialect, and another one is worth trying."""
    DROPPED = auto()


class Conversation:
    """Speaks first, sends frames, and hands on what it hears. `run` is its life; the rest returns at once."""

    def __init__(
        self,
        socket: WhisperSocket,
        endpoint: Endpoint,
        whisper: "WhisperConfig",
        heard: Callable[[Transcription], Awaitable[None]],
        logger: log.Logger,
    ) -> None:
        self.finals = 0
        """Finals heard so far, repetitions not counted."""
        self._socket = socket
        self._endpoint = endpoint
        self._dialect = endpoint.dialect
        self._heard = heard
        self._logger = logger.bind(dialect=self._dialect.value)
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._waiting_since: float | None = None  # the end of audio, or the last final after it
        self._acknowledged = False
        self._patience: asyncio.Timeout | None = None
        self._last_final: Transcription | None = None
        socket.send_text(protocol.start_message(self._dialect, whisper))

    @property
    def writable(self) -> bool:
        """Whether frames may be sent now."""
        return self._socket.writable

    @property
    def caught_up(self) -> bool:
        """Whether everything that the server has said was read."""
        return not self._socket.unread

    @property
    def audio_ended(self) -> bool:
        """Whether the server was told that there is no more audio."""
        return self._waiting_since is not None

    def send(self, frames: NDArray[np.int16]) -> None:
        """Send frames [n, 512]."""
        for frame in frames:
            self._socket.send_frame(frame.tobytes())

    def end_audio(self) -> None:
        """Say that there is no more audio: `run` ends when the server has nothing more to say."""
        self._socket.send_text(protocol.END_AUDIO)
        self._waiting_since = self._loop.time()
        if self._patience is not None:
            self._patience.reschedule(self._deadline())

    def abort(self) -> None:
        """Cut it: `run` ends with `DROPPED`."""
        self._socket.abort()

    async def run(self) -> Ending:
        """Listen until it ends, and close the socket."""
        try:
            with metrics.WHISPER_OPEN.track_inprogress():
                ending = await self._listen()
        except SocketClosed as closed:
            refused = self._young and closed.code in protocol.REJECTED_CLOSE_CODES
            rejected = refused and self._endpoint.rejected(self._dialect)
            ending = Ending.REJECTED if rejected else Ending.DROPPED
            self._logger.warning("whisper_dropped", code=closed.code, reason=closed.reason[:80])
        finally:
            await self._socket.close()
        if ending is not Ending.FINISHED:
            metrics.WHISPER_DROPS.labels(ending.name.lower()).inc()
        return ending

    async def _listen(self) -> Ending:
        while True:
            try:
                async with asyncio.timeout_at(self._deadline()) as self._patience:
                    message = protocol.parse(await self._socket.receive())
            except TimeoutError:
                self._logger.warning("whisper_silent_at_end", acknowledged=self._acknowledged)
                return Ending.SILENT
            finally:
                self._patience = None
            metrics.WHISPER_MESSAGES.labels(message.kind).inc()
            if isinstance(message, Transcription):
                await self._transcription(message)
            elif isinstance(message, EndOfAudio):
                self._endpoint.accepted(self._dialect)
                self._acknowledged = True
                if message.finished and self.audio_ended:
                    return Ending.FINISHED
            elif isinstance(message, ServerError):
                self._logger.warning("whisper_error", reason=message.reason)
                if self._young and self._endpoint.rejected(self._dialect):
                    return Ending.REJECTED

    async def _transcription(self, said: Transcription) -> None:
        self._endpoint.accepted(self._dialect)
        if said.is_final and said == self._last_final and all(s.start_s is not None for s in said.segments):
            return  # a server that repeats itself: the same words are not said twice at the same time
        await self._heard(said)
        if said.is_final:
            self.finals += 1
            self._last_final = said
            if self.audio_ended:
                self._waiting_since = self._loop.time()

    def _deadline(self) -> float | None:
        """When waiting for the next message ends; None while audio is being sent."""
        if self._waiting_since is None:
            return None
        return self._waiting_since + (ACKNOWLEDGED_S if self._acknowledged else ANSWER_S)

    @property
    def _young(self) -> bool:
        return self._loop.time() - self._opened_at < REJECTION_S
