"""One speaker at 16 kHz to Whisper and back: a file or a microphone, without telephone, journal or webhook.

Audio goes from its source through one bounded queue to the socket. What was sent in the first seconds is kept,
so that nothing is lost when the server refuses the start message and the other dialect has to be tried.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from bridge.config import is_loopback
from bridge.errors import BridgeError
from bridge.whisper import protocol
from bridge.whisper.conversation import REJECTION_S
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.protocol import Dialect, EndOfAudio, ServerError, Transcription
from bridge.whisper.route import OPEN_LONGEST_S
from bridge.whisper.socket import ConnectFailed, SocketClosed, WhisperSocket

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

FRAME: Final = 512
"""Samples of one message: what Baseten's VAD takes at a time."""

FRAME_S: Final = FRAME / protocol.SAMPLE_RATE

QUEUE_FRAMES: Final = 312
"""Frames between source and socket: 10 s. A file waits when it is full; a microphone loses its oldest."""

AGAIN_SPEED: Final = 2.0
"""How fast audio is sent a second time: servers drop what comes faster."""

FINISH_TIMEOUT_S: Final = 60.0
"""Silence of the server after `end_audio` that is taken for its end. Slow machines recognise slowly."""

WRITABLE_POLL_S: Final = 0.005

Frames = asyncio.Queue[bytes | None]
"""Frames of `FRAME` samples, s16le; None after the last one."""

Source = Callable[[Frames], Coroutine[Any, Any, None]]
"""Puts its frames, and None, into a queue. Called once a socket is open."""


def recording(samples: NDArray[np.int16], speed: float) -> Source:
    """A source that plays 16 kHz `samples` as they were spoken, or `speed` times as fast."""

    async def play(frames: Frames) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        padded = np.pad(samples, (0, -len(samples) % FRAME)).astype("<i2")
        for index, frame in enumerate(padded.reshape(-1, FRAME)):
            await asyncio.sleep(begun + index * FRAME_S / speed - loop.time())
            await frames.put(frame.tobytes())
        await frames.put(None)

    return play


class _Refused(Exception):  # noqa: N818 - an answer that leads to the next try
    """The server does not take the start message."""


class Dictation:
    """Sends what one source says and tells what was understood, until the server has finished."""

    def __init__(
        self, endpoint: Endpoint, whisper: "WhisperConfig", understood: Callable[[Transcription], None]
    ) -> None:
        self._endpoint = endpoint
        self._whisper = whisper
        self._understood = understood
        self._host = urlsplit(endpoint.url).netloc
        self._frames: Frames = asyncio.Queue(QUEUE_FRAMES)
        self._source_ended = False
        self._sent: deque[bytes] = deque()  # to this socket in its first seconds
        self._again: deque[bytes] = deque()  # to an earlier socket, in vain
        self._end_sent = False
        self._patience: asyncio.Timeout | None = None

    async def run(self, source: Source) -> None:
        """Transcribe `source` to its end.

        Raises `BridgeError` in one sentence when the endpoint cannot be reached, refuses the key or the
        start message, or ends the conversation too early; and whatever `source` raises.
        """
        capture: asyncio.Task[None] | None = None
        try:
            for _ in Dialect:
                socket = await self._connect()
                capture = capture or asyncio.create_task(source(self._frames))
                dialect = self._endpoint.dialect
                try:
                    return await self._speak(socket, dialect, capture)
                except _Refused as refused:
                    reason = f"{self._host} refused the start message of dialect {dialect}: {refused}"
                if not self._endpoint.rejected(dialect):
                    break
                self._again, self._sent = self._sent + self._again, deque()
            raise BridgeError(f"{reason}. Is it a streaming Whisper of dialect {' or '.join(Dialect)}?")
        finally:
            if capture:
                await _ended(capture)

    async def _connect(self) -> WhisperSocket:
        try:
            return await WhisperSocket.connect(
                self._endpoint.url, api_key=self._endpoint.api_key, timeout=OPEN_LONGEST_S
            )
        except ConnectFailed as failed:
            raise BridgeError(f"{failed}{_advice(failed.status, self._endpoint.url)}") from failed

    async def _speak(self, socket: WhisperSocket, dialect: Dialect, capture: asyncio.Task[None]) -> None:
        """One socket's life, from the start message to `finished`."""
        self._end_sent = False
        socket.send_text(protocol.start_message(dialect, self._whisper))
        sender = asyncio.create_task(self._send(socket))
        listener = asyncio.create_task(self._listen(socket))
        try:
            done, _ = await asyncio.wait({capture, sender, listener}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            await _ended(sender)
            await _ended(listener)
            await socket.close()

    async def _send(self, socket: WhisperSocket) -> None:
        now = asyncio.get_running_loop().time
        opened = now()
        while (frame := await self._next()) is not None:
            if now() - opened < REJECTION_S:
                self._sent.append(frame)
            else:
                self._sent.clear()
            # Not for ever: a peer that reads nothing answers no ping either, and is cut off.
            while not socket.writable:  # noqa: ASYNC110 - the tick asks the same way, and needs no event
                await asyncio.sleep(WRITABLE_POLL_S)
            socket.send_frame(frame)
        socket.send_text(protocol.END_AUDIO)
        self._end_sent = True
        if self._patience:
            self._patience.reschedule(now() + FINISH_TIMEOUT_S)

    async def _next(self) -> bytes | None:
        if self._again:
            await asyncio.sleep(FRAME_S / AGAIN_SPEED)
            return self._again.popleft()
        frame = None if self._source_ended else await self._frames.get()
        self._source_ended = frame is None
        return frame

    async def _listen(self, socket: WhisperSocket) -> None:
        now = asyncio.get_running_loop().time
        opened = now()
        started = False  # whether the server has answered, and so taken the start message
        while True:
            try:
                async with asyncio.timeout(FINISH_TIMEOUT_S if self._end_sent else None) as self._patience:
                    message = protocol.parse(await socket.receive())
            except TimeoutError:
                raise BridgeError(f"{self._host} did not finish within {FINISH_TIMEOUT_S:g} s") from None
            except SocketClosed as closed:
                young = not started and now() - opened < REJECTION_S
                if young and closed.code in protocol.REJECTED_CLOSE_CODES:
                    raise _Refused(str(closed)) from closed
                raise BridgeError(f"{self._host} ended the conversation too early: {closed}") from closed
            if isinstance(message, ServerError):
                if not started:
                    raise _Refused(message.reason)
                raise BridgeError(f"{self._host} reports an error: {message.reason}")
            if isinstance(message, Transcription | EndOfAudio):
                started = True
                self._endpoint.accepted(self._endpoint.dialect)
            if isinstance(message, Transcription):
                self._understood(message)
            elif isinstance(message, EndOfAudio) and message.finished and self._end_sent:
                return


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task, if it still runs, and wait for its end, whatever that is."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _advice(status: int | None, url: str) -> str:
    """What a person can do about a socket that did not open."""
    if status in {401, 403}:
        return ": check whisper.api_key, or the environment variable BASETEN_API_KEY"
    if status is not None:
        return ": check whisper.url or whisper.model_id"
    if is_loopback(urlsplit(url).hostname or ""):
        return "; is it running? Start one with: whisper-bridge whisper"
    return ""
