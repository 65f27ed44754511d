"""A Whisper server that understands nothing: it notes when each frame of audio came, and tells finals by the clock."""

import asyncio
import json
import ssl
import time
from array import array
from collections.abc import Callable, Mapping, MutableSequence
from dataclasses import dataclass
from typing import Final, Self, cast

from bridge.errors import BridgeError
from bridge.local.load import tag
from bridge.local.load.wire import Frames, Opcode, accepted, frame, head, masked

FINAL_FRAMES: Final = 156
"""A final for every 5 s of audio, which is much for one who speaks and also listens."""

FRAME_S: Final = 0.032

_HEAD: Final = head(Opcode.BINARY, tag.FRAME_BYTES, masked=True)
_WHOLE: Final = len(_HEAD) + 4 + tag.FRAME_BYTES
"""Bytes of a frame of audio on the wire, its mask among them: all are alike, so they are counted and not read."""


@dataclass(frozen=True, slots=True)
class Noted:
    """What happened since one asked before. All times are seconds of the monotonic clock."""

    open: int
    """Sockets that are open now."""
    came: Mapping[int, MutableSequence[float]]
    """The number that a socket's audio said -> when each of its frames came. -1: it said none."""
    finals: dict[str, float]
    """The text of each final -> when it was written. Those of sockets without a number are not told."""


class Sink:
    """Takes the sockets of bridges while it is open: `async with Sink() as sink`, at `ws://127.0.0.1:{port}/`.

    `on_audio` is called with each frame of audio, which costs what it costs. Raises BridgeError when the port cannot
    be had.
    """

    def __init__(
        self,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        on_audio: Callable[[bytes], None] | None = None,
    ) -> None:
        self.port = port
        """Where it listens; known once it is open."""
        self._tls = tls
        self._on_audio = on_audio
        self._sockets: list[_Socket] = []
        self._finals: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Socket(self._sockets, self._finals, self._on_audio),
                "127.0.0.1",
                self.port,
                ssl=self._tls,
                backlog=1024,
            )
        except OSError as error:
            where = f"127.0.0.1:{self.port}"
            raise BridgeError(f"cannot be a Whisper server at {where}: {error.strerror or error}.") from None
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for socket in self._sockets:
            socket.abort()
        await self._server.wait_closed()

    def take(self) -> Noted:
        """What there is to tell, which is then forgotten."""
        came: dict[int, MutableSequence[float]] = {}
        for socket in self._sockets:
            if socket.came:
                came.setdefault(socket.number, array("d")).extend(socket.came)
                socket.came = array("d")
        noted = Noted(sum(not socket.lost for socket in self._sockets), came, self._finals.copy())
        self._sockets[:] = [socket for socket in self._sockets if not socket.lost]
        self._finals.clear()
        return noted


class _Socket(asyncio.Protocol):
    """One WebSocket of a bridge's."""

    def __init__(
        self,
        sockets: "list[_Socket]",
        finals: dict[str, float],
        on_audio: Callable[[bytes], None] | None,
    ) -> None:
        self.number = -1
        self.came: array[float] = array("d")
        self.lost = False
        self._sockets = sockets
        self._finals = finals
        self._on_audio = on_audio
        self._count = 0
        self._final_at = 0
        self._request = b""
        self._frames = Frames()
        self._open = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._sockets.append(self)
        # They must not all speak at once.
        self._final_at = 1 + len(self._sockets) * 37 % FINAL_FRAMES

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        # The first frame says the number; after it, as good as always, exactly one frame comes.
        fixed = len(data) == _WHOLE and data.startswith(_HEAD) and not self._frames.rest
        if fixed and self._count and not self._on_audio:
            self._audio(now)
            return
        if not self._open:
            self._request += data
            request, end, data = self._request.partition(b"\r\n\r\n")
            if not end:
                return
            self._transport.write(accepted(request.decode()))
            self._open = True
        for opcode, payload, key in self._frames.feed(data):
            if opcode == Opcode.BINARY and len(payload) == tag.FRAME_BYTES:
                if not self._count or self._on_audio:
                    self._listen(masked(payload, key))
                self._audio(now)
            else:
                self._answer(opcode, masked(payload, key))

    def abort(self) -> None:
        """End it without a close."""
        self._transport.abort()

    def _listen(self, audio: bytes) -> None:
        if not self._count:
            self.number = tag.heard(audio)
        if self._on_audio:
            self._on_audio(audio)

    def _audio(self, now: float) -> None:
        self.came.append(now)
        self._count += 1
        if self._count == self._final_at:
            self._tell()

    def _tell(self) -> None:
        """Say a final of all audio since the one before."""
        text = f"what was said on line {self.number} until frame {self._count}"
        end = self._count * FRAME_S
        segment = {
            "text": text,
            "start_time": max(0.0, end - FINAL_FRAMES * FRAME_S),
            "end_time": end,
            "log_prob": -0.2,
            "word_timestamps": [],
        }
        message = {
            "type": "transcription",
            "is_final": True,
            "transcript": text,
            "segments": [segment],
            "language_code": "en",
            "transcription_num": self._count // FINAL_FRAMES,
        }
        self._final_at += FINAL_FRAMES
        if self.number >= 0:
            self._finals[text] = time.monotonic()
        self._send(message)

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.TEXT and b"end_audio" in payload:
            for status in ("acknowledged", "finished"):
                self._send({"type": "end_audio", "body": {"status": status}})
        elif opcode == Opcode.PING:
            self._transport.write(frame(Opcode.PONG, payload))
        elif opcode == Opcode.CLOSE:
            self._transport.write(frame(Opcode.CLOSE, payload))
            self._transport.close()

    def _send(self, message: dict[str, object]) -> None:
        self._transport.write(frame(Opcode.TEXT, json.dumps(message).encode()))
