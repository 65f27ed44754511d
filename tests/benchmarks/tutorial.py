"""A bridge as tutorials write it: what the real one's capacity is compared with.

aiohttp's server, websockets' client, numpy, uvloop. Every message is decoded by `json` and base64, mu-law by a table,
and 8 kHz become 16 kHz by linear interpolation. A queue and two tasks stand between the sockets of each track, and
each final is posted from the task that received it. No signature, no journal, no outbox, no reconnecting, no retries.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import numpy as np
import websockets
from aiohttp import web

from bridge.audio import mulaw
from tests.benchmarks import program

CHUNK: Final = 1024
"""Bytes that Whisper takes at a time: 512 samples at 16 kHz."""

START: Final = {
    "whisper_params": {"audio_language": "en"},
    "streaming_params": {"encoding": "pcm_s16le", "sample_rate": 16000},
    "streaming_vad_config": {"threshold": 0.5},
}

SESSION: Final = web.AppKey("SESSION", aiohttp.ClientSession)


def upsampled(ulaw: bytes, last: np.int16) -> tuple[bytes, np.int16]:
    """16 kHz of mu-law, halfway between its samples and `last` before them; and its last one."""
    samples = mulaw.DECODE[np.frombuffer(ulaw, np.uint8)]
    joined = np.concatenate(([last], samples)).astype(np.float32)
    doubled = np.empty(2 * len(samples), np.float32)
    doubled[0::2] = (joined[:-1] + joined[1:]) / 2
    doubled[1::2] = joined[1:]
    return doubled.astype("<i2").tobytes(), samples[-1]


class Transcriber:
    """One track of a call."""

    def __init__(self, around: program.Around, session: aiohttp.ClientSession) -> None:
        self._around = around
        self._session = session
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._run())
        self._last = np.int16(0)

    def feed(self, payload: str) -> None:
        self._queue.put_nowait(base64.b64decode(payload))

    async def close(self) -> None:
        self._queue.put_nowait(None)
        await self._task

    async def _run(self) -> None:
        async with websockets.connect(self._around.whisper_url, compression=None) as whisper:
            await whisper.send(json.dumps(START))
            receiver = asyncio.create_task(self._receive(whisper))
            buffer = bytearray()
            while (ulaw := await self._queue.get()) is not None:
                samples, self._last = upsampled(ulaw, self._last)
                buffer += samples
                while len(buffer) >= CHUNK:
                    await whisper.send(bytes(buffer[:CHUNK]))
                    del buffer[:CHUNK]
            await whisper.send(json.dumps({"type": "end_audio"}))
            await receiver

    async def _receive(self, whisper: websockets.ClientConnection) -> None:
        async for text in whisper:
            message: dict[str, Any] = json.loads(text)
            if message["type"] == "end_audio" and message["body"]["status"] == "finished":
                return
            if message["type"] == "transcription" and message["is_final"]:
                event = {"type": "transcript.final", "data": {"text": message["transcript"]}}
                async with self._session.post(self._around.webhook_url, json=event):
                    pass


def application(around: program.Around) -> web.Application:
    """The routes that a call needs."""

    async def media(request: web.Request) -> web.WebSocketResponse:
        twilio = web.WebSocketResponse()
        await twilio.prepare(request)
        tracks: dict[str, Transcriber] = {}
        try:
            async for received in twilio:
                message = json.loads(received.data)
                if message["event"] == "start":
                    for track in message["start"]["tracks"]:
                        tracks[track] = Transcriber(around, request.app[SESSION])
                elif message["event"] == "media":
                    tracks[message["media"]["track"]].feed(message["media"]["payload"])
                elif message["event"] == "stop":
                    break
        finally:
            for transcriber in tracks.values():
                with contextlib.suppress(websockets.ConnectionClosed):
                    await transcriber.close()
        return twilio

    async def session(app: web.Application) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as app[SESSION]:
            yield

    app = web.Application()
    app.cleanup_ctx.append(session)
    app.add_routes([web.post("/twilio/voice", around.voice), web.get("/twilio/media", media)])
    return app


if __name__ == "__main__":
    program.run(application)
