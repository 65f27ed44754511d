"""The least that a bridge of this kind costs in Python: what the real one's cost is compared with.

An aiohttp server and websockets' client on uvloop. For every 256 bytes of mu-law it sends the same 1,024
bytes to Whisper: no filter, no journal, no signature, no outbox, no reconnecting.
`python -m tests.benchmarks.floor WHISPER_URL` says on stderr where it listens, and runs until stdin is closed.
"""

import asyncio
import json
import socket
import sys
from base64 import b64decode
from typing import Any

import uvloop
from aiohttp import web
from twilio.twiml.voice_response import Start, VoiceResponse
from websockets.asyncio.client import ClientConnection, connect

from tests.benchmarks import tag

FRAME = 256
"""Samples at 8 kHz of one Whisper frame."""

FINISH_S = 10.0


class Track:
    """One track and its socket to Whisper."""

    def __init__(self, whisper: ClientConnection) -> None:
        self._whisper = whisper
        self._pending = 0
        self._frame = b""

    async def media(self, audio: bytes) -> None:
        """Send a frame if this audio completes one."""
        self._frame = self._frame or tag.widened(audio)
        self._pending += len(audio)
        while self._pending >= FRAME:
            self._pending -= FRAME
            await self._whisper.send(self._frame)

    async def finish(self) -> None:
        """End as the protocol asks for it."""
        async with asyncio.timeout(FINISH_S):
            await self._whisper.send('{"type": "end_audio"}')
            async for message in self._whisper:
                if json.loads(message)["body"]["status"] == "finished":
                    break
            await self._whisper.close()


def application(whisper_url: str, port: int) -> web.Application:
    """The routes that a call needs."""

    async def voice(_request: web.Request) -> web.Response:
        response, start = VoiceResponse(), Start()
        start.stream(url=f"ws://127.0.0.1:{port}/twilio/media", track="both_tracks")
        response.append(start)
        response.pause(length=600)
        return web.Response(text=str(response), content_type="application/xml")

    async def media(request: web.Request) -> web.WebSocketResponse:
        twilio = web.WebSocketResponse(compress=False)
        await twilio.prepare(request)
        tracks: dict[str, Track] = {}
        async for received in twilio:
            message: dict[str, Any] = json.loads(received.data)
            if message["event"] == "media":
                body = message["media"]
                await tracks[body["track"]].media(b64decode(body["payload"]))
            elif message["event"] == "start":
                for name in message["start"]["tracks"]:
                    tracks[name] = Track(await connect(whisper_url, compression=None))
            elif message["event"] == "stop":
                break
        for track in tracks.values():
            await track.finish()
        return twilio

    app = web.Application()
    app.add_routes([web.post("/twilio/voice", voice), web.get("/twilio/media", media)])
    return app


async def main(whisper_url: str) -> None:
    """Serve until stdin ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port = listener.getsockname()[1]
        runner = web.AppRunner(application(whisper_url, port), access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            sys.stderr.write(json.dumps({"event": "listening", "port": port}) + "\n")
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(sys.argv[1]))
