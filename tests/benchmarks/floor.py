"""The least that a bridge of this kind costs in Python: what the real one's cost is compared with.

An aiohttp server and websockets' client on uvloop. For every 256 bytes of mu-law it sends the same 1,024
bytes to Whisper: no filter, no journal, no signature, no outbox, no reconnecting, no webhook.
"""

import asyncio
import json
from base64 import b64decode
from typing import Any

from aiohttp import web
from websockets.asyncio.client import ClientConnection, connect

from bridge.local.load import tag
from tests.benchmarks import program

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
                said = json.loads(message)
                if said["type"] == "end_audio" and said["body"]["status"] == "finished":
                    break
            await self._whisper.close()


def application(around: program.Around) -> web.Application:
    """The routes that a call needs."""

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
                    tracks[name] = Track(await connect(around.whisper_url, compression=None))
            elif message["event"] == "stop":
                break
        for track in tracks.values():
            await track.finish()
        return twilio

    app = web.Application()
    app.add_routes([web.post("/twilio/voice", around.voice), web.get("/twilio/media", media)])
    return app


if __name__ == "__main__":
    program.run(application)
