"""What stands before a bridge in the world: a proxy that ends TLS, and takes a path prefix away."""

import asyncio
import ssl
from pathlib import Path
from typing import Self

import aiohttp
import yarl
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

CERTIFICATE = Path(__file__).parents[1] / "whisper" / "self-signed.pem"
"""Of `localhost`, with its key."""

HOP_BY_HOP = frozenset({"connection", "upgrade", "host", "content-length", "transfer-encoding"})


def trusting() -> ssl.SSLContext:
    """What a client needs to believe the proxy's certificate."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


class TlsProxy:
    """Answers at `url`, and hands on to `upstream` what lies below `prefix`."""

    def __init__(self, prefix: str) -> None:
        self.upstream = ""
        self._prefix = prefix
        app = web.Application()
        app.router.add_route("*", prefix + "/{path:.*}", self._handed_on)
        self._server = TestServer(app, scheme="https")
        self._client: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """With the prefix, and without a slash at the end."""
        return f"https://localhost:{self._server.port}{self._prefix}"

    async def __aenter__(self) -> Self:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(CERTIFICATE)
        await self._server.start_server(ssl=tls)
        self._client = aiohttp.ClientSession(auto_decompress=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._client is not None
        await self._client.close()
        await self._server.close()

    async def _handed_on(self, request: web.Request) -> web.StreamResponse:
        assert self._client is not None
        # What Twilio has signed must arrive as it was.
        url = yarl.URL(self.upstream + request.raw_path.removeprefix(self._prefix), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        headers |= {"X-Forwarded-Prefix": self._prefix, "X-Forwarded-For": request.remote or ""}
        if request.headers.get("Upgrade", "").lower() == "websocket":
            headers = {name: value for name, value in headers.items() if not name.startswith("Sec-")}
            return await self._websocket(request, url, headers)
        async with self._client.request(
            request.method, url, data=await request.read(), headers=headers
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )

    async def _websocket(
        self, request: web.Request, url: yarl.URL, headers: dict[str, str]
    ) -> web.StreamResponse:
        assert self._client is not None
        try:
            inner = await self._client.ws_connect(url, headers=headers)
        except aiohttp.WSServerHandshakeError as refused:
            return web.Response(status=refused.status)
        outer = web.WebSocketResponse()
        await outer.prepare(request)

        async def inwards() -> None:
            async for message in outer:
                if message.type is WSMsgType.TEXT:
                    await inner.send_str(message.data)
            await inner.close()

        reading = asyncio.create_task(inwards())
        async for _ in inner:
            pass  # the bridge says nothing; it closes
        await outer.close(code=inner.close_code or 1000)
        await reading
        return outer
