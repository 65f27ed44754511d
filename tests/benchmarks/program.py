"""What the small programs beside the benchmark have in common: they take calls until their stdin is closed.

Each is started as `python -m tests.benchmarks.NAME WHISPER_URL TRACK [WEBHOOK_URL]` and says on stderr where it listens.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvloop
from aiohttp import web
from twilio.twiml.voice_response import Start, VoiceResponse


@dataclass(frozen=True, slots=True)
class Around:
    """What a program is started with."""

    whisper_url: str
    track: str
    """As TwiML has it."""
    webhook_url: str
    port: int

    @classmethod
    def of(cls, arguments: Sequence[str], port: int) -> "Around":
        whisper_url, track, *rest = arguments
        return cls(whisper_url, track, rest[0] if rest else "", port)

    async def voice(self, _request: web.Request) -> web.Response:
        """The document that has a call streamed to `/twilio/media`."""
        response, start = VoiceResponse(), Start()
        start.stream(url=f"ws://127.0.0.1:{self.port}/twilio/media", track=self.track)
        response.append(start)
        response.pause(length=3600)
        return web.Response(text=str(response), content_type="application/xml")


def run(application: Callable[[Around], web.Application]) -> None:
    """Serve until stdin ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(application))


async def _serve(application: Callable[[Around], web.Application]) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        runner = web.AppRunner(
            application(Around.of(sys.argv[1:], port)), access_log=None, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            sys.stderr.write(json.dumps({"event": "listening", "port": port}) + "\n")
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await runner.cleanup()
