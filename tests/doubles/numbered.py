"""A Whisper server for tests whose words are numbers, and speech that it understands without error.

Word n is 200 ms of a steady level that encodes n, followed by 60 ms of silence. Levels survive mu-law and the
upsampler (a steady signal passes unchanged), so every word is recognised exactly, with its times; loss,
repetition and order can be counted. An utterance ends after 300 ms of silence.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bridge.audio import mulaw

WORD_MS, PAUSE_MS, END_MS = 200, 60, 300
_LEVELS = np.unique(mulaw.DECODE[mulaw.DECODE > 0])[8:]


def speech(numbers: range, *, utterance: int = 4) -> bytes:
    """Mu-law of words, with 400 ms of silence after every `utterance` of them."""
    parts = []
    for count, number in enumerate(numbers, 1):
        level = np.full(WORD_MS * 8, _LEVELS[number % len(_LEVELS)], np.int16)
        parts.append(mulaw.encode(level) + b"\xff" * (PAUSE_MS * 8))
        if count % utterance == 0:
            parts.append(b"\xff" * 3200)
    return b"".join(parts)


@dataclass
class Connection:
    """One session as the server saw it."""

    start: dict[str, Any] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    pcm: bytearray = field(default_factory=bytearray)
    frame_sizes: set[int] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    close_code: int | None = None


Fault = Callable[[int, Connection, ServerConnection], Awaitable[None]]
"""Called after each frame with the connection's number; may close or break the socket."""


class NumberedWhisper:
    """The server. Set `fault`, `delay_s`, `refuse` or `dialects` before calls come."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.fault: Fault | None = None
        self.delay_s: list[float] = []
        """Seconds that the upgrades of the first, second ... connection take."""
        self.refuse: list[int] = []
        """HTTP statuses that the first, second ... upgrade is refused with; 0 lets it pass."""
        self.dialects: tuple[str, ...] = ("v1", "seed")
        self.word_times = True
        self.partials = False
        self.finishes = True
        self.end_delay_s = 0.0
        """Seconds between the acknowledgement of `end_audio` and the last final."""
        self.closes_at_end = False
        """The socket is closed where `finished` should be said."""
        self.early_s = 0.0
        """Seconds by which every word ends too early."""
        self.deaf_at_end = False
        """`end_audio` is not even acknowledged."""
        self.deaf = False
        """Connections are taken, and then neither read nor closed."""
        self.mute: set[int] = set()
        """Connections that hear and say nothing."""
        self._attempts = 0
        self._closing = asyncio.Event()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._session, "127.0.0.1", 0, process_request=self._upgrade, compression=None, ping_interval=None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._closing.set()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/websocket"

    async def _upgrade(self, socket: ServerConnection, _request: Request) -> Response | None:
        attempt, self._attempts = self._attempts, self._attempts + 1
        if attempt < len(self.delay_s):
            await asyncio.sleep(self.delay_s[attempt])
        if attempt < len(self.refuse) and self.refuse[attempt]:
            return socket.respond(self.refuse[attempt], "refused\n")
        return None

    async def _session(self, socket: ServerConnection) -> None:
        number = len(self.connections)
        connection = Connection()
        self.connections.append(connection)
        assert socket.request is not None
        connection.headers = socket.request.headers
        try:
            first = await socket.recv()
            assert isinstance(first, str)
            connection.start = json.loads(first)
            dialect = "seed" if "streaming_whisper_params" in connection.start else "v1"
            if dialect not in self.dialects:
                await socket.close(1011, "Internal Server Error (in model/chainlet).")
                return
            if self.deaf:
                socket.transport.pause_reading()
                await self._closing.wait()
                socket.transport.abort()
            await self._converse(number, connection, socket)
        except ConnectionClosed:
            pass
        finally:
            connection.close_code = socket.close_code

    async def _converse(self, number: int, connection: Connection, socket: ServerConnection) -> None:
        ear = _Ear()
        async for message in socket:
            if isinstance(message, str):
                connection.texts.append(message)
                if json.loads(message)["type"] == "end_audio" and not self.deaf_at_end:
                    await socket.send('{"type":"end_audio","body":{"status":"acknowledged"}}')
                    await asyncio.sleep(self.end_delay_s)
                    if number not in self.mute:
                        await self._say(socket, ear.flush(), final=True)
                    if self.closes_at_end:
                        await socket.close(1000)
                    elif self.finishes:
                        await socket.send('{"type":"end_audio","body":{"status":"finished"}}')
                continue
            connection.frame_sizes.add(len(message))
            connection.pcm += message
            words = ear.hear(message)
            if number in self.mute or self.deaf_at_end:
                pass
            elif words:
                await self._say(socket, words, final=True)
            elif self.partials and ear.fresh():
                await self._say(socket, ear.words, final=False)
            if self.fault is not None:
                await self.fault(number, connection, socket)

    async def _say(self, socket: ServerConnection, words: list[dict[str, Any]], *, final: bool) -> None:
        if not words:
            return
        words = [
            word | {"end_time": max(word["start_time"], word["end_time"] - self.early_s)} for word in words
        ]
        segment: dict[str, Any] = {"text": " ".join(word["word"] for word in words), "log_prob": -0.25}
        if self.word_times:
            segment |= {
                "start_time": words[0]["start_time"],
                "end_time": words[-1]["end_time"],
                "word_timestamps": words,
            }
        message = {"type": "transcription", "is_final": final, "language_code": "en", "segments": [segment]}
        await socket.send(json.dumps(message))


class _Ear:
    """Finds words by their level, in 4 ms slices."""

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []
        self._slices = 0
        self._silent = 0
        self._level: list[int] = []
        self._told = 0

    def hear(self, frame: bytes) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        for part in np.frombuffer(frame, "<i2").reshape(-1, 64):
            self._slices += 1
            level = int(np.median(part))
            if level > 40:
                self._level.append(level)
                self._silent = 0
                continue
            self._silent += 1
            self._word_over()
            if self._silent * 4 >= END_MS and self.words:
                heard += self.flush()
        return heard

    def fresh(self) -> bool:
        told, self._told = self._told, len(self.words)
        return len(self.words) > told

    def flush(self) -> list[dict[str, Any]]:
        self._word_over()
        words, self.words, self._told = self.words, [], 0
        return words

    def _word_over(self) -> None:
        heard, self._level = self._level, []
        if len(heard) * 4 < WORD_MS // 4:
            return  # the ring of the filter, or less of a word than anybody would understand
        number = int(np.abs(_LEVELS - np.median(heard)).argmin())
        end = (self._slices - 1) * 0.004
        start = max(0.0, end - len(heard) * 0.004)
        self.words.append({"word": f"w{number}", "start_time": start, "end_time": end, "prob": 0.9})
