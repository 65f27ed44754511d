"""From aiohttp to a protocol of our own: the answer to a request for a WebSocket, and what follows on its connection."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, cast

from aiohttp import web
from websockets.utils import accept_key

if TYPE_CHECKING:
    from aiohttp.http import WebSocketReader


async def upgraded(request: web.Request, protocol: asyncio.Protocol) -> web.StreamResponse:
    """Answer the upgrade, and give the connection to `protocol`; returns what the handler has to return at the end.

    Raises 400 if the request asks for no WebSocket.
    """
    if not web.WebSocketResponse().can_prepare(request):
        raise web.HTTPBadRequest(text="this is for WebSockets: the request does not ask for one")
    accept = accept_key(request.headers["Sec-WebSocket-Key"])
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    response = web.StreamResponse(status=101, headers=headers)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
    transport = request.transport
    if transport is None:  # it did not wait for the answer
        protocol.connection_lost(None)
        return response
    protocol.connection_made(transport)
    early = cast("WebSocketReader", _Early(protocol))  # has what aiohttp asks of one
    request.protocol.set_parser(early)
    transport.set_protocol(_Both(protocol, request.protocol))
    return response


class _Early:
    """Takes the bytes that came together with the request."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.feed_data = protocol.data_received

    def feed_eof(self) -> None:
        """Nothing: the protocol learns when its connection is lost."""


class _Both(asyncio.Protocol):
    """The protocol, which gets everything, and aiohttp, which must know when the connection is lost."""

    def __init__(self, protocol: asyncio.Protocol, http: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._http = http
        self.data_received = protocol.data_received  # type: ignore[method-assign]  # one call less for each packet
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]  # and nothing to add to these
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell both."""
        self._protocol.connection_lost(exc)
        self._http.connection_lost(exc)
