"""A Whisper server that understands nothing: it notes when each frame of audio came, and ends in good order.

`python -m tests.benchmarks.sink` says on stderr where it listens. It runs until its stdin is closed; then it
writes what it noted to stdout: `{track number: [[seconds, ...] of each socket]}`, on the monotonic clock.
"""

import asyncio
import json
import sys
import time
from array import array
from typing import cast

import uvloop
from websockets.utils import accept_key

from tests.benchmarks import tag
from tests.benchmarks.wire import Frames, Opcode, frame, masked

Noted = dict[int, list[list[float]]]


class Socket(asyncio.Protocol):
    """One WebSocket of the bridge's."""

    def __init__(self, sockets: "list[Socket]") -> None:
        self.number = -1
        self.came: array[float] = array("d")
        self._sockets = sockets
        self._request = b""
        self._frames = Frames()
        self._open = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._sockets.append(self)

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
                if not self.came:
                    self.number = tag.heard(masked(payload, key))
                self.came.append(now)
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

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.TEXT and b"end_audio" in payload:
            for status in ("acknowledged", "finished"):
                message = {"type": "end_audio", "body": {"status": status}}
                self._transport.write(frame(Opcode.TEXT, json.dumps(message).encode()))
        elif opcode == Opcode.PING:
            self._transport.write(frame(Opcode.PONG, payload))
        elif opcode == Opcode.CLOSE:
            self._transport.write(frame(Opcode.CLOSE, payload))
            self._transport.close()


async def main() -> None:
    """Listen until stdin ends."""
    sockets: list[Socket] = []
    server = await asyncio.get_running_loop().create_server(lambda: Socket(sockets), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sys.stderr.write(json.dumps({"event": "listening", "port": port}) + "\n")
        await asyncio.to_thread(sys.stdin.read)
        noted: Noted = {}
        for socket in sockets:
            noted.setdefault(socket.number, []).append(socket.came.tolist())
        json.dump(noted, sys.stdout)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
