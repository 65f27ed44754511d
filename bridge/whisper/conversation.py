"""What one socket and its server say to each other, from the start message to `finished`."""

import asyncio
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge import log, metrics
from bridge.whisper import protocol
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.protocol import Dialect, EndOfAudio, Health, Message, ServerError, Transcription
from bridge.whisper.socket import SocketClosed, WhisperSocket
from bridge.whisper.vigil import LOOK_S, Verdict, Vigil

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

REJECTION_S: Final = 5.0
"""A refused start message is answered within a round trip; what goes wrong after this has other reasons."""

ANSWER_S: Final = 8.0
"""Silence after `end_audio`, or after the last final that followed it, that ends the waiting."""

ACKNOWLEDGED_S: Final = 30.0
"""The same once the server has acknowledged `end_audio`: the last utterance may be a long one."""

HEALTH_CLOSE_S: Final = 2.0
"""A server that closes the socket so soon after a health check may have closed it for that."""

RECENT: Final = 16
"""Finals among which a repetition is looked for."""


class Ending(Enum):
    """How a conversation ended."""

    FINISHED = auto()
    """The server has said everything there is."""
    SILENT = auto()
    """It stopped answering after the end of audio without having said that it is finished."""
    REJECTED = auto()
    """It does not take this dialect, and another one is worth trying."""
    DROPPED = auto()
    """By the server, or on the way to it."""
    ABORTED = auto()
    """By us: the server does not do its work, or a successor takes over."""


class Listening(Protocol):
    """Whom a conversation tells; it says nothing else meanwhile."""

    async def understood(self, said: Transcription) -> None:
        """The server understood something."""

    async def look(self, now: float) -> None:
        """A second has passed."""


class Conversation:
    """Speaks first, sends frames, and hands on what it hears. `run` is its life; the rest returns at once."""

    def __init__(
        self,
        socket: WhisperSocket,
        endpoint: Endpoint,
        whisper: "WhisperConfig",
        listening: Listening,
        logger: log.Logger,
        *,
        dialect: Dialect | None = None,
    ) -> None:
        self.answered = False
        """The server has said something that made sense."""
        self.acknowledged = False
        """It has taken note of the end of audio."""
        self.finals_at_end = 0
        """Finals heard since the end of audio."""
        self._socket = socket
        self._endpoint = endpoint
        self._dialect = dialect or endpoint.dialect
        self._listening = listening
        self._logger = logger.bind(dialect=self._dialect.value, host=endpoint.host)
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._look_at = self._opened_at + LOOK_S
        self._vigil = Vigil(self._opened_at, knows_health=endpoint.knows_health)
        self._asked_at = float("-inf")
        self._waiting_since: float | None = None  # the end of audio, or the last final after it
        self._recent: list[Transcription] = []
        self._aborted = ""  # why
        socket.send_text(protocol.start_message(self._dialect, whisper))

    @property
    def dialect(self) -> Dialect:
        """What the start message was said in."""
        return self._dialect

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

    def abort(self, why: str) -> None:
        """Cut it: `run` ends with `ABORTED` once what has come is heard. `why` is for logs and metrics."""
        self._aborted = self._aborted or why
        self._socket.abort()

    async def run(self) -> Ending:
        """Listen until it ends, and close the socket."""
        cause = ""
        try:
            with metrics.WHISPER_OPEN.track_inprogress():
                ending = await self._listen()
        except SocketClosed as closed:
            ending, cause = self._closed(closed)
        finally:
            await self._socket.close()
        if ending is not Ending.FINISHED:
            metrics.WHISPER_DROPS.labels(cause or ending.name.lower()).inc()
        return ending

    async def _listen(self) -> Ending:
        while True:
            try:
                async with asyncio.timeout_at(self._wake_at()):
                    message = protocol.parse(await self._socket.receive())
            except TimeoutError:
                message = None
            now = self._loop.time()
            ending = None if message is None else await self._take(message, now)
            if ending is None and (message is None or now >= self._look_at):
                self._look_at = now + LOOK_S
                ending = await self._look(now)
            if ending is not None:
                return ending

    async def _take(self, message: Message, now: float) -> Ending | None:
        metrics.WHISPER_MESSAGES.labels(message.kind).inc()
        if isinstance(message, ServerError):
            return self._error(message, now)
        self._vigil.heard(now)
        if isinstance(message, Transcription):
            self._accepted()
            await self._transcription(message)
        elif isinstance(message, EndOfAudio):
            self._accepted()
            self.acknowledged = True
            if message.finished and self.audio_ended:
                return Ending.FINISHED
        elif isinstance(message, Health):
            self._accepted()
            self._vigil.answered(now)
            self._endpoint.knows_health = True
        return None

    async def _transcription(self, said: Transcription) -> None:
        if said.is_final:
            if said in self._recent and _can_be_told_apart(said):
                return  # a server that repeats itself: the same words are not said twice at the same time
            self._recent.append(said)
            del self._recent[:-RECENT]
        await self._listening.understood(said)
        if said.is_final and self.audio_ended:
            self.finals_at_end += 1
            self._waiting_since = self._loop.time()

    async def _look(self, now: float) -> Ending | None:
        if self._waiting_since is not None and now >= self._patient_until(self._waiting_since):
            self._logger.warning("whisper_silent_at_end", acknowledged=self.acknowledged)
            return Ending.SILENT
        if self._waiting_since is None:  # else it has been asked something already
            verdict = self._vigil.look(now, unsent=self._socket.unsent, writable=self._socket.writable)
            if verdict is Verdict.ASK:
                self._asked_at = now
                self._socket.send_text(protocol.HEALTH_CHECK)
            elif verdict is not Verdict.FINE:
                self.abort(verdict.name.lower())
        await self._listening.look(now)
        return None

    def _closed(self, closed: SocketClosed) -> tuple[Ending, str]:
        if self._aborted:
            self._logger.info("whisper_left", why=self._aborted)
            return Ending.ABORTED, self._aborted
        self._logger.warning("whisper_dropped", code=closed.code, reason=closed.reason[:80])
        refused = closed.code in protocol.REJECTED_CLOSE_CODES
        now = self._loop.time()
        if refused and now - self._opened_at < REJECTION_S and self._endpoint.rejected(self._dialect):
            return Ending.REJECTED, ""
        if refused and self._endpoint.knows_health is None and now - self._asked_at < HEALTH_CLOSE_S:
            self._endpoint.knows_health = False
        return Ending.DROPPED, ""

    def _error(self, error: ServerError, now: float) -> Ending | None:
        self._logger.warning("whisper_error", reason=error.reason)
        self._vigil.error(now)
        if now - self._opened_at < REJECTION_S and self._endpoint.rejected(self._dialect):
            return Ending.REJECTED
        return None

    def _accepted(self) -> None:
        self.answered = True
        self._endpoint.accepted(self._dialect)

    def _wake_at(self) -> float:
        """When to look, whether or not the server says something."""
        if self._waiting_since is None:
            return self._look_at
        return min(self._look_at, self._patient_until(self._waiting_since))

    def _patient_until(self, since: float) -> float:
        return since + (ACKNOWLEDGED_S if self.acknowledged else ANSWER_S)


def _can_be_told_apart(said: Transcription) -> bool:
    """Whether two such finals would differ if they were said twice."""
    return said.number is not None or all(segment.start_s is not None for segment in said.segments)
