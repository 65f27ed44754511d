"""picows' ways. It is no dependency of the bridge: who does not have it has no figures of it.

It comes with a transport of its own, aiofastnet's.
"""

import ssl
from collections.abc import Iterable

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from tests.benchmarks.clients.contestant import Client, Server, Take


class PicowsClient(Client[WSTransport]):
    """picows' client."""

    async def open(self) -> WSTransport:
        transport, _ = await ws_connect(WSListener, self.url, ssl_context=self.tls)
        return transport

    async def send(self, turn: Iterable[tuple[WSTransport, bytes]]) -> None:
        for transport, frame in turn:
            transport.send(WSMsgType.BINARY, frame)


class PicowsServer(Server):
    """picows' server."""

    async def listen(self, tls: ssl.SSLContext | None) -> int:
        self._server = await ws_create_server(lambda _request: Listener(self.take), "127.0.0.1", 0, ssl=tls)
        port: int = self._server.sockets[0].getsockname()[1]
        return port


class Listener(WSListener):
    """One socket of the server's."""

    def __init__(self, take: Take) -> None:
        self._take = take

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            self._take(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
