"""A strict little bridge: it checks what the simulated Twilio does with Twilio's own library."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import WSMsgType, web
from twilio.request_validator import RequestValidator

PUBLIC = "https://bridge.example.com"
TOKEN = "12345"

START = (
    '<Response><Start><Stream name="asr-1" url="wss://bridge.example.com/twilio/media" track="both_tracks" '
    'statusCallback="https://bridge.example.com/twilio/stream-status"><Parameter name="token" value="k9"/>'
    '</Stream></Start><Pause length="3600"/></Response>'
)
CONNECT = (
    '<Response><Connect><Stream name="asr-1" url="wss://bridge.example.com/twilio/media" '
    'statusCallback="https://bridge.example.com/twilio/stream-status"/></Connect>'
    "<Redirect>https://bridge.example.com/twilio/resume</Redirect></Response>"
)


class StrictBridge:
    def __init__(self) -> None:
        self.public = PUBLIC
        self.twiml = START
        self.resume_twiml: str | None = None
        self.voice_status = 200
        self.content_type = "text/xml"
        self.media_status: int | None = None
        self.on_message: Callable[[web.WebSocketResponse, dict[str, Any]], Any] | None = None
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self.url = ""
        self.forms: list[tuple[str, dict[str, str]]] = []
        self.upgrades: list[dict[str, str]] = []
        self.raw: list[str] = []
        self.arrivals: list[float] = []
        self.close_codes: list[int | None] = []
        self.socket_over = asyncio.Event()

    @property
    def voice_url(self) -> str:
        return f"{self.url}/twilio/voice"

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.raw]

    def media(self, track: str = "inbound") -> list[dict[str, str]]:
        found = [message["media"] for message in self.messages if message["event"] == "media"]
        return [media for media in found if media["track"] == track]

    def stream_events(self) -> list[str]:
        return [form["StreamEvent"] for path, form in self.forms if path == "/twilio/stream-status"]

    async def post(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        signature = request.headers.get("X-Twilio-Signature", "")
        if not RequestValidator(TOKEN).validate(self.public + request.path_qs, form, signature):
            return web.Response(status=403)
        self.forms.append((request.path, form))
        if self.before_answer:
            await self.before_answer()
        if request.path == "/twilio/stream-status":
            return web.Response(status=204)
        text = self.resume_twiml if request.path == "/twilio/resume" and self.resume_twiml else self.twiml
        return web.Response(status=self.voice_status, text=text, content_type=self.content_type)

    async def media_socket(self, request: web.Request) -> web.StreamResponse:
        signed = self.public.replace("https", "wss") + request.path_qs
        good = RequestValidator(TOKEN).compute_signature(signed, {})
        if self.media_status or request.headers.get("X-Twilio-Signature") != good:
            return web.Response(status=self.media_status or 403)
        self.upgrades.append(dict(request.headers))
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    self.arrivals.append(time.time())
                    self.raw.append(message.data)
                    if self.on_message:
                        await self.on_message(ws, json.loads(message.data))
        finally:
            self.close_codes.append(ws.close_code)
            self.socket_over.set()
        return ws

    @classmethod
    @asynccontextmanager
    async def open(cls) -> AsyncIterator[Self]:
        bridge = cls()
        app = web.Application()
        app.router.add_route("*", "/twilio/media", bridge.media_socket)
        app.router.add_route("*", "/{path:.*}", bridge.post)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        bridge.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield bridge
        finally:
            await runner.cleanup()
