"""A client of the local Whisper server, as small as tests need it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.doubles.telephone import frames

START = '{"whisper_params": {"show_word_timestamps": true}, "streaming_vad_config": {"speech_pad_ms": 30}}'


class WhisperClient:
    """A started session."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def hear(self, pcm: bytes) -> None:
        """Send audio as fast as it goes."""
        for frame in frames(pcm):
            await self.socket.send(frame)

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(15):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def rest(self) -> list[dict[str, Any]]:
        """End the audio; everything up to and including `finished`."""
        await self.say(type="end_audio")
        messages = [await self.next()]
        while messages[-1].get("body") != {"status": "finished"}:
            messages.append(await self.next())
        return messages


@asynccontextmanager
async def session(url: str, start: str = START, key: str | None = None) -> AsyncIterator[WhisperClient]:
    headers = {} if key is None else {"Authorization": key}
    async with connect(url, additional_headers=headers, compression=None, proxy=None) as socket:
        await socket.send(start)
        yield WhisperClient(socket)


def finals(messages: list[dict[str, Any]]) -> list[str]:
    """The text of each final."""
    return [
        " ".join(segment["text"] for segment in message["segments"])
        for message in messages
        if message.get("is_final")
    ]
