"""A Whisper server that understands nothing: it notes when each frame of audio came, and tells finals by the clock.

`python -m tests.benchmarks.sink [CERTIFICATE]` says on stderr where it listens; with a certificate it speaks TLS.
For each line on stdin it writes one to stdout, `Noted` as JSON, of what happened since the line before. It runs
until stdin is closed. All times are seconds of the monotonic clock.
"""

import asyncio
import json
import ssl
import sys
import time
from array import array
from typing import Final, TypedDict, cast

import uvloop
from websockets.utils import accept_key

from tests.benchmarks import tag
from tests.benchmarks.wire import Frames, Opcode, frame, masked

FINAL_FRAMES: Final = 156
"""A final for every 5 s of audio, which is much for one who speaks and also listens."""

FRAME_S: Final = 0.032


class Noted(TypedDict):
    """What happened."""

    open: int
    """Sockets that are open now."""
    came: dict[str, list[float]]
    """The number that a socket's audio said -> when each of its frames came. -1: it said none."""
    finals: dict[str, float]
    """The text of each final -> when it was written."""


class Socket(asyncio.Protocol):
    """One WebSocket of the bridge's."""

    def __init__(self, sockets: "list[Socket]", finals: dict[str, float]) -> None:
        self.number = -1
        self.came: array[float] = array("d")
        self.lost = False
        self._sockets = sockets
        self._finals = finals
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
        if not self._open:
            self._request += data
            request, end, data = self._request.partition(b"\r\n\r\n")
            if not end:
                return
            self._accept(request.decode())
        for opcode, payload, key in self._frames.feed(data):
            if opcode == Opcode.BINARY and len(payload) == tag.FRAME_BYTES:
                if not self._count:
                    self.number = tag.heard(masked(payload, key))
                self._count += 1
                self.came.append(now)
                if self._count == self._final_at:
                    self._tell()
            else:
                self._answer(opcode, masked(payload, key))

    def _accept(self, request: str) -> None:
        fields = dict(line.split(": ", 1) for line in request.split("\r\n")[1:])
        key = {name.lower(): value for name, value in fields.items()}["sec-websocket-key"]
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
        )
        self._open = True

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


async def main(certificate: str | None = None) -> None:
    """Listen until stdin ends."""
    sockets: list[Socket] = []
    finals: dict[str, float] = {}
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(
        lambda: Socket(sockets, finals), "127.0.0.1", 0, ssl=tls, backlog=1024
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        sys.stderr.write(json.dumps({"event": "listening", "port": port}) + "\n")
        while await asyncio.to_thread(sys.stdin.readline):
            sys.stdout.write(json.dumps(_taken(sockets, finals)) + "\n")
            sys.stdout.flush()


def _taken(sockets: list[Socket], finals: dict[str, float]) -> Noted:
    """What there is to tell, which is then forgotten."""
    came: dict[str, list[float]] = {}
    for socket in sockets:
        if socket.came:
            came.setdefault(str(socket.number), []).extend(socket.came)
            socket.came = array("d")
    noted = Noted(open=sum(not socket.lost for socket in sockets), came=came, finals=finals.copy())
    sockets[:] = [socket for socket in sockets if not socket.lost]
    finals.clear()
    return noted


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
