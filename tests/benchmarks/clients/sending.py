"""Those who send to Whisper. `python -m tests.benchmarks.clients.sending NAME URL SOCKETS` is one of them, as a process.

It says on stderr when its sockets are open. For each line on stdin, `grouped SECONDS` or `lone SECONDS`, it sends for
so long, and writes to stdout what it did: {"sent": frames, "late_s": [how late each turn was]}.
"""

import asyncio
import sys
from collections.abc import Iterable
from itertools import cycle
from typing import Any, cast

import aiohttp
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from bridge.whisper.socket import WhisperSocket
from tests.benchmarks.clients.contestant import BRIDGE, NOTHING, Client, answer, loop, ready
from tests.benchmarks.clients.workload import FRAMES, Schedule, grouped, lone


class Nothing(Client[None]):
    """The schedule alone: what is measured of everybody, and is nobody's."""

    async def open(self) -> None:
        return

    async def send(self, turn: Iterable[tuple[None, bytes]]) -> None:
        for _ in turn:
            pass


class WebsocketsAsyncio(Client[ClientConnection]):
    """websockets, as its documentation has it."""

    async def open(self) -> ClientConnection:
        return await connect(self.url, ssl=self.tls, compression=None, ping_interval=None)

    async def send(self, turn: Iterable[tuple[ClientConnection, bytes]]) -> None:
        for socket, frame in turn:
            await socket.send(frame)


class SansIo(asyncio.Protocol):
    """The least that makes a socket of websockets' protocol."""

    def __init__(self, protocol: ClientProtocol) -> None:
        self._ws = protocol
        self.transport: asyncio.Transport
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._ws.send_request(self._ws.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._ws.receive_data(data)
        if any(isinstance(event, Response) for event in self._ws.events_received()):
            self.opened.set_result(None)
        self._flush()

    def send(self, frame: bytes) -> None:
        self._ws.send_binary(frame)
        self._flush()

    def _flush(self) -> None:
        for data in self._ws.data_to_send():
            self.transport.write(data)


class WebsocketsSansIo(Client[SansIo]):
    """websockets' protocol, and nothing else of it."""

    async def open(self) -> SansIo:
        uri = parse_uri(self.url)
        _, socket = await asyncio.get_running_loop().create_connection(
            lambda: SansIo(ClientProtocol(uri)), uri.host, uri.port, ssl=self.tls
        )
        await socket.opened
        return socket

    async def send(self, turn: Iterable[tuple[SansIo, bytes]]) -> None:
        for socket, frame in turn:
            socket.send(frame)


class Bare(WebsocketsSansIo):
    """uvloop's transport, given what was masked long before: nobody who uses it can do with less."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._packed = {frame: Frame(Opcode.BINARY, frame).serialize(mask=True) for frame in FRAMES}

    async def send(self, turn: Iterable[tuple[SansIo, bytes]]) -> None:
        for socket, frame in turn:
            socket.transport.write(self._packed[frame])


class Aiohttp(Client[aiohttp.ClientWebSocketResponse]):
    """aiohttp's client."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def open(self) -> aiohttp.ClientWebSocketResponse:
        return await self._session.ws_connect(self.url, ssl=self.tls or False)

    async def send(self, turn: Iterable[tuple[aiohttp.ClientWebSocketResponse, bytes]]) -> None:
        for socket, frame in turn:
            await socket.send_bytes(frame)


class Bridge(Client[WhisperSocket]):
    """What the bridge has."""

    async def open(self) -> WhisperSocket:
        return await WhisperSocket.connect(self.url, api_key="", timeout=10)

    async def send(self, turn: Iterable[tuple[WhisperSocket, bytes]]) -> None:
        for socket, frame in turn:
            socket.send_frame(frame)


def client(name: str, url: str) -> Client[Any]:
    """One of `contestant.SENDING`."""
    if name == "picows":
        from tests.benchmarks.clients.picows_sockets import PicowsClient  # noqa: PLC0415 - it need not be there

        return PicowsClient(url)
    ways: dict[str, type[Client[Any]]] = {
        NOTHING: Nothing,
        "bare": Bare,
        "websockets": WebsocketsAsyncio,
        "sans-io": WebsocketsSansIo,
        "aiohttp": Aiohttp,
        BRIDGE: Bridge,
        "bridge-aiofastnet": Bridge,
    }
    return ways[name](url)


async def main(name: str, url: str, sockets: str) -> None:
    """Open the sockets, and take orders until stdin ends."""
    sender = client(name, url)
    opened = [await sender.open() for _ in range(int(sockets))]
    ready()
    while order := await asyncio.to_thread(sys.stdin.readline):
        how, seconds = order.split()
        turns = grouped() if how == "grouped" else lone(len(opened))
        groups, frames, sent = turns.groups(opened), cycle(FRAMES), 0
        schedule = Schedule(turns, float(seconds))
        async for turn in schedule:
            await sender.send(zip(groups[turn], frames, strict=False))
            sent += len(groups[turn])
        answer({"sent": sent, "late_s": schedule.late_s})


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop(sys.argv[1])) as runner:
        runner.run(main(*sys.argv[1:]))
