"""Those who receive from Twilio. `python -m tests.benchmarks.clients.receiving NAME [CERTIFICATE]` is one, as a process.

It says on stderr where it listens; with a certificate it speaks TLS. For each line on stdin, the number of messages that
were written, it waits until it has so many, and writes to stdout what it took:
{"taken": [how often each of `MESSAGES`], "strange": others}.
"""

import asyncio
import ssl
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any, Final, cast

from aiohttp import EofStream, WSMessage, WSMsgType, web
from aiohttp._websocket.models import WSMessageTextBytes
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from bridge.twilio.socket import Socket
from tests.benchmarks.clients.contestant import BRIDGE, Server, Take, answer, loop, ready
from tests.benchmarks.clients.workload import MESSAGES

_BUFFER: Final = memoryview(bytearray(1 << 16))
"""What is read is used up before anything else is."""

PATIENCE_S: Final = 5.0
"""How long a message may be under way."""


class WebsocketsAsyncio(Server):
    """websockets, as its documentation has it. Bytes are what is parsed, so nothing is decoded."""

    async def listen(self, tls: ssl.SSLContext | None) -> int:
        self._server = await serve(
            self._receive, "127.0.0.1", 0, ssl=tls, compression=None, ping_interval=None
        )
        return _port(next(iter(self._server.sockets)))

    async def _receive(self, socket: ServerConnection) -> None:
        while True:
            self.take(await socket.recv(decode=False))


class SansIo(asyncio.BufferedProtocol):
    """The least that makes a socket of websockets' protocol. With buffers of its own, uvloop's TLS costs half."""

    def __init__(self, take: Take) -> None:
        self._ws = ServerProtocol()
        self._take = take
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def get_buffer(self, _size: int) -> memoryview:
        return _BUFFER

    def buffer_updated(self, size: int) -> None:
        self._ws.receive_data(bytes(_BUFFER[:size]))
        for event in self._ws.events_received():
            if isinstance(event, Frame):
                if event.opcode is Opcode.TEXT:
                    self._take(bytes(event.data))
            elif isinstance(event, Request):
                self._ws.send_response(self._ws.accept(event))
        for out in self._ws.data_to_send():
            self._transport.write(out)


class WebsocketsSansIo(Server):
    """websockets' protocol, and nothing else of it."""

    async def listen(self, tls: ssl.SSLContext | None) -> int:
        self._server = await asyncio.get_running_loop().create_server(
            lambda: SansIo(self.take), "127.0.0.1", 0, ssl=tls
        )
        return _port(self._server.sockets[0])


class Aiohttp(Server):
    """aiohttp's server, one `receive()` after another."""

    async def listen(self, tls: ssl.SSLContext | None) -> int:
        app = web.Application()
        app.router.add_get("/", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls).start()
        port: int = self._runner.addresses[0][1]
        return port

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        while (message := await socket.receive()).type is WSMsgType.TEXT:
            self.take(message.data)
        return socket


class Queue(WebSocketDataQueue):
    """What aiohttp's parser puts messages into; here it hands them on at once."""

    def __init__(self, request: web.Request, take: Take) -> None:
        super().__init__(request.protocol, 1 << 16, loop=asyncio.get_running_loop())
        self._take = take

    def feed_data(self, data: WSMessage | WSMessageTextBytes, size: int) -> None:
        if data.type is WSMsgType.TEXT:
            self._take(data.data)
        else:
            super().feed_data(data, size)


class AiohttpCallback(Aiohttp):
    """aiohttp's server and its parser, without a queue between."""

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        queue = Queue(request, self.take)
        parser = WebSocketReader(queue, 1 << 16, compress=False, decode_text=False)
        request.protocol._payload_parser = None  # aiohttp's own, whose queue has no place for a callback
        request.protocol.set_parser(parser)
        with suppress(EofStream):
            await queue.read()
        return socket


class Bridge(Aiohttp):
    """What the bridge has: heartbeats, and limits on what a peer may send."""

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        socket = Socket(speed=1)
        response = await socket.open(request)
        await socket.each(self._taken)
        return response

    def _taken(self, text: bytes) -> bool:
        self.take(text)
        return True


def server(name: str, take: Take) -> Server:
    """One of `contestant.RECEIVING`."""
    if name == "picows":
        from tests.benchmarks.clients.picows_sockets import PicowsServer  # noqa: PLC0415 - it need not be there

        return PicowsServer(take)
    ways: dict[str, type[Server]] = {
        "websockets": WebsocketsAsyncio,
        "sans-io": WebsocketsSansIo,
        "aiohttp": Aiohttp,
        "aiohttp-callback": AiohttpCallback,
        BRIDGE: Bridge,
        "bridge-aiofastnet": Bridge,
    }
    return ways[name](take)


def _port(socket: Any) -> int:
    port: int = socket.getsockname()[1]
    return port


async def main(name: str, certificate: str = "") -> None:
    """Listen, and take orders until stdin ends."""
    tally: Counter[str | bytes] = Counter()

    def take(message: str | bytes) -> None:
        tally[message] += 1

    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    receiver = server(name, take)
    ready(await receiver.listen(tls))
    while order := await asyncio.to_thread(sys.stdin.readline):
        until = time.monotonic() + PATIENCE_S
        while tally.total() < int(order) and time.monotonic() < until:
            await asyncio.sleep(0.002)
        taken = [tally[message] + tally[message.encode()] for message in MESSAGES]
        answer({"taken": taken, "strange": tally.total() - sum(taken)})
        tally.clear()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop(sys.argv[1])) as runner:
        runner.run(main(*sys.argv[1:]))
