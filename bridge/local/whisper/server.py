"""The Whisper server: `ws://HOST:PORT/websocket`, in the protocol of Baseten's streaming endpoint."""

import asyncio
import contextlib
import hmac
from typing import Self

from aiohttp import WSCloseCode, web

from bridge.audio import voice
from bridge.errors import BridgeError
from bridge.local.whisper.connection import Connection
from bridge.local.whisper.engine import Engine
from bridge.local.whisper.faults import Faults
from bridge.local.whisper.session import Session
from bridge.local.whisper.start import Accepted
from bridge.log import get

PATH = "/websocket"

MAX_MESSAGE = 1 << 20
"""Bytes. A frame of audio is 1,024; the real server's 100 MiB have no use here."""

HEARTBEAT_S = 20.0
"""Between pings, as uvicorn does under the real server."""

CLOSE_TIMEOUT_S = 1.0

_HEALTHY = Faults()
_log = get(__name__)


class WhisperServer:
    """Serves an engine until closed; use it with `async with`.

    `port` 0 takes any free one; `url` tells which. Without `api_key` any key is accepted, and none.
    `dialect` says which start messages are understood. `faults`, which may be replaced at any time, is
    for testing clients. Entering opens the engine, leaving closes it. Raises `BridgeError` when the
    engine or the port cannot be had.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        dialect: Accepted = "any",
        faults: Faults | None = None,
    ) -> None:
        self.engine = engine
        self.host = host
        self.port = port
        self.faults = faults
        self.connections = 0
        """Upgrades asked for so far, refused ones included."""
        self._keys = () if api_key is None else (f"Api-Key {api_key}".encode(), f"Bearer {api_key}".encode())
        self._dialect = dialect
        self._runner: web.AppRunner | None = None
        self._open: set[web.WebSocketResponse] = set()
        self._closing = asyncio.Event()

    @property
    def url(self) -> str:
        """Where clients connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ws://{host}:{self.port}{PATH}"

    async def __aenter__(self) -> Self:
        voice.load()  # the first one would stall the first call
        await self.engine.open()
        app = web.Application()
        app.router.add_get(PATH, self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_TIMEOUT_S)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self.host, self.port).start()
        except OSError as error:
            await self.close()
            raise BridgeError(f"Cannot listen on {self.host}:{self.port}: {error.strerror}") from error
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection (1001), the port and the engine."""
        self._closing.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(open_.close(code=WSCloseCode.GOING_AWAY) for open_ in self._open))
        if self._runner:
            await self._runner.cleanup()
        await self.engine.close()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        faults = self._faults_of(self.connections)
        self.connections += 1
        if faults.upgrade_delay_s:
            await self._hang(faults.upgrade_delay_s)
        if faults.refuse_status is not None:
            return web.Response(status=faults.refuse_status, text="Refused")
        if not self._authorised(request):
            return web.Response(status=401, text="The API key is missing or wrong")
        websocket = web.WebSocketResponse(compress=False, max_msg_size=MAX_MESSAGE, heartbeat=HEARTBEAT_S)
        if not websocket.can_prepare(request).ok:
            return web.Response(status=400, text="This is a WebSocket endpoint")
        try:
            await websocket.prepare(request)
        except ConnectionError:  # it did not wait for its upgrade
            return websocket
        session = Session(voice.load(), self._dialect)
        connection = Connection(
            websocket,
            transport=request.transport,
            session=session,
            engine=self.engine,
            faults=faults,
            closing=self._closing,
        )
        self._open.add(websocket)
        _log.info("client_connected", remote=request.remote)
        try:
            await connection.run()
        finally:
            self._open.discard(websocket)
            _log.info("client_left", remote=request.remote, code=websocket.close_code)
        return websocket

    async def _hang(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()

    def _faults_of(self, connection: int) -> Faults:
        faults = self.faults
        if faults is None or (faults.times is not None and connection >= faults.times):
            return _HEALTHY
        return faults

    def _authorised(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode()
        return not self._keys or any(hmac.compare_digest(given, key) for key in self._keys)
