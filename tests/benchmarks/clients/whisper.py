"""Whisper's end of the sockets: it counts the frames that come, and answers pings."""

import asyncio
import ssl
from collections import Counter
from typing import Final, Self, cast

from bridge.local.load.wire import Frames, Opcode, accepted, frame, masked
from tests.doubles.tls_proxy import CERTIFICATE


class Whisper:
    """`async with Whisper(tls=True) as whisper`: listens at `url`."""

    def __init__(self, *, tls: bool) -> None:
        self.heard: Counter[bytes] = Counter()
        """What came, without its mask. To be cleared by whoever counts."""
        self._tls = tls
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        tls = None
        if self._tls:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(CERTIFICATE)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Socket(self.heard), "127.0.0.1", 0, ssl=tls, backlog=1024
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        port = self._server.sockets[0].getsockname()[1]
        return f"{'wss' if self._tls else 'ws'}://localhost:{port}/websocket"


class Socket(asyncio.Protocol):
    """One WebSocket of a contestant's."""

    def __init__(self, heard: Counter[bytes]) -> None:
        self._heard: Final = heard
        self._request = b""
        self._open = False
        self._frames = Frames()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if not self._open:
            self._request += data
            request, end, data = self._request.partition(b"\r\n\r\n")
            if not end:
                return
            self._transport.write(accepted(request.decode()))
            self._open = True
        for opcode, payload, key in self._frames.feed(data):
            if opcode == Opcode.BINARY:
                self._heard[masked(payload, key)] += 1
            elif opcode == Opcode.PING:
                self._transport.write(frame(Opcode.PONG, masked(payload, key)))
