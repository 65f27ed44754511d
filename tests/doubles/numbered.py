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
_LEVELS = np.unique(mulaw.DECODE[mulaw.DECODE > 300])  # what is softer could be the noise of a line
VOCABULARY = len(_LEVELS)
"""Word n sounds like word n + VOCABULARY."""


def speech(numbers: range, *, utterance: int = 4) -> bytes:
    """Mu-law of words, with 400 ms of silence after every `utterance` of them."""
    parts = []
    for count, number in enumerate(numbers, 1):
        level = np.full(WORD_MS * 8, _LEVELS[number % len(_LEVELS)], np.int16)
        parts.append(mulaw.encode(level) + b"\xff" * (PAUSE_MS * 8))
        if count % utterance == 0:
            parts.append(b"\xff" * 3200)
    return b"".join(parts)


def sounds(frame: bytes) -> float:
    """What a voice detector would say that took these words for speech, and nothing that is as quiet as a line."""
    return float(np.frombuffer(frame, "<i2").max() > 250)


@dataclass
class Connection:
    """One session as the server saw it."""

    start: dict[str, Any] = field(default_factory=dict)
    headers: Headers = field(default_factory=Headers)
    pcm: bytearray = field(default_factory=bytearray)
    frame_sizes: set[int] = field(default_factory=set)
    texts: list[str] = field(default_factory=list)
    close_code: int | None = None
    opened_at: float = 0.0
    last_at: float = 0.0
    """When it opened, and when its latest frame came, by the loop's clock."""
    mute: bool = False
    """It hears, and says no final any more."""
    deaf: bool = False
    """It does not even take note of `end_audio`."""
    said: list[dict[str, Any]] = field(default_factory=list)
    """The words of its latest final."""
    waiting: list[list[dict[str, Any]]] = field(default_factory=list)
    """Finals that are to be said after a later one."""
    count: int = 0
    """Finals said."""

    @property
    def heard_s(self) -> float:
        """Seconds of audio that came."""
        return len(self.pcm) / 32_000


Fault = Callable[[int, Connection, ServerConnection], Awaitable[None]]
"""Called after each frame with the connection's number; may close or break the socket. While it does not return
the server does not read."""


async def reset(socket: ServerConnection) -> None:
    """Break the connection: close code 1006 for the client."""
    socket.transport.abort()


async def stop_reading(socket: ServerConnection) -> None:
    """Read nothing more, answer no ping, and leave the socket open until the client cuts it."""
    socket.transport.pause_reading()
    await socket.wait_closed()


async def zombie(socket: ServerConnection) -> None:
    """Say that something went wrong, and do nothing more; the library still answers pings."""
    await socket.send('{"type":"error","body":{"error":"recognition failed"}}')
    await socket.wait_closed()


class NumberedWhisper:
    """The server. Set what goes wrong before calls come, or while they last."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.fault: Fault | None = None
        self.before_final: Fault | None = None
        """Called when a final is due."""
        self.at_end: Fault | None = None
        """Called when `end_audio` has come."""
        self.delay_s: list[float] = []
        """Seconds that the upgrades of the first, second ... connection take."""
        self.refuse: list[int] = []
        """HTTP statuses that the first, second ... upgrade is refused with; 0 lets it pass."""
        self.refusing = 0
        """The HTTP status that every upgrade is refused with while it is not 0."""
        self.headers: dict[str, str] = {}
        """Headers of a refusal: `Retry-After`, `Location`."""
        self.dialects: tuple[str, ...] = ("v1", "seed")
        self.word_times = True
        self.segment_times = False
        """Without word times: whether segments have theirs."""
        self.numbers = False
        """Whether finals are counted in `transcription_num`."""
        self.health = "answered"
        """What becomes of a health check: `answered`, `ignored`, an `error`, or the socket is `closed` (1011)."""
        self.reorders = False
        """Every second final is said before the one before it."""
        self.repeats = False
        """Every final is said twice."""
        self.overlaps = 0
        """So many words of the final before are said again in each."""
        self.garbage: list[str | bytes] = []
        """Said before every final."""
        self.finishes_early = False
        """`finished` is said before the last final, which is never said."""
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
        self.unheard = range(0)
        """Words that are music to it: it says nothing of an utterance that begins with one of them."""
        self.mute: set[int] = set()
        """Connections that hear and say nothing."""
        self.attempts: list[float] = []
        """When upgrades were asked for, by the loop's clock."""
        self._closing = asyncio.Event()
        self._sockets: set[ServerConnection] = set()
        self._server: Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._session, "127.0.0.1", 0, process_request=self._upgrade, compression=None, ping_interval=None
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._closing.set()
        for socket in self._sockets:
            socket.transport.abort()  # some do not read, and would not notice that their client is gone
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/websocket"

    async def _upgrade(self, socket: ServerConnection, _request: Request) -> Response | None:
        attempt = len(self.attempts)
        self.attempts.append(asyncio.get_running_loop().time())
        if attempt < len(self.delay_s):
            await asyncio.sleep(self.delay_s[attempt])
        status = self.refuse[attempt] if attempt < len(self.refuse) else self.refusing
        if not status:
            return None
        answer = socket.respond(status, "refused\n")
        for name, value in self.headers.items():
            answer.headers[name] = value
        return answer

    async def _session(self, socket: ServerConnection) -> None:
        number = len(self.connections)
        connection = Connection(opened_at=asyncio.get_running_loop().time())
        self.connections.append(connection)
        self._sockets.add(socket)
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
            self._sockets.discard(socket)
            connection.close_code = socket.close_code

    async def _converse(self, number: int, connection: Connection, socket: ServerConnection) -> None:
        ear = _Ear()
        connection.mute = number in self.mute
        async for message in socket:
            if isinstance(message, str):
                connection.texts.append(message)
                kind = json.loads(message)["type"]
                if kind == "health_check":
                    await self._tell_health(socket)
                elif kind == "end_audio" and not (self.deaf_at_end or connection.deaf):
                    await self._end(number, connection, socket, ear)
                continue
            connection.frame_sizes.add(len(message))
            connection.pcm += message
            connection.last_at = asyncio.get_running_loop().time()
            words = ear.hear(message)
            if self.deaf_at_end:
                pass
            elif words:
                await self._final(number, connection, socket, words)
            elif self.partials and not connection.mute and ear.fresh():
                await self._say(connection, socket, ear.words, final=False)
            if self.fault is not None:
                await self.fault(number, connection, socket)

    async def _end(self, number: int, connection: Connection, socket: ServerConnection, ear: "_Ear") -> None:
        if self.at_end is not None:
            await self.at_end(number, connection, socket)
        await socket.send('{"type":"end_audio","body":{"status":"acknowledged"}}')
        if self.finishes_early:
            await socket.send('{"type":"end_audio","body":{"status":"finished"}}')
            return
        await asyncio.sleep(self.end_delay_s)
        await self._final(number, connection, socket, ear.flush(), last=True)
        if self.closes_at_end:
            await socket.close(1000)
        elif self.finishes:
            await socket.send('{"type":"end_audio","body":{"status":"finished"}}')

    async def _tell_health(self, socket: ServerConnection) -> None:
        if self.health == "answered":
            await socket.send('{"type":"health_check","body":{"healthy":true}}')
        elif self.health == "error":
            await socket.send('{"type":"error","message":"unknown message"}')
        elif self.health == "closed":
            await socket.close(1011)

    async def _final(
        self,
        number: int,
        connection: Connection,
        socket: ServerConnection,
        words: list[dict[str, Any]],
        *,
        last: bool = False,
    ) -> None:
        if words and int(words[0]["word"][1:]) in {number % VOCABULARY for number in self.unheard}:
            words = []
        if words and self.before_final is not None:
            await self.before_final(number, connection, socket)
        if connection.mute:
            return
        waiting = connection.waiting
        if words:
            before, connection.said = connection.said, words
            waiting.append(before[len(before) - self.overlaps :] + words if self.overlaps else words)
        if self.reorders and len(waiting) == 1 and not last:
            return
        for each in reversed(waiting):
            for noise in self.garbage:
                await socket.send(noise)
            connection.count += 1
            for _ in range(1 + self.repeats):
                await self._say(connection, socket, each, final=True)
        waiting.clear()

    async def _say(
        self, connection: Connection, socket: ServerConnection, words: list[dict[str, Any]], *, final: bool
    ) -> None:
        words = [
            word | {"end_time": max(word["start_time"], word["end_time"] - self.early_s)} for word in words
        ]
        segment: dict[str, Any] = {"text": " ".join(word["word"] for word in words), "log_prob": -0.25}
        if self.word_times or self.segment_times:
            segment |= {"start_time": words[0]["start_time"], "end_time": words[-1]["end_time"]}
        if self.word_times:
            segment["word_timestamps"] = words
        message = {"type": "transcription", "is_final": final, "language_code": "en", "segments": [segment]}
        if self.numbers:
            message["transcription_num"] = connection.count
        await socket.send(json.dumps(message))


class _Ear:
    """Finds words by their level, in 4 ms slices."""

    def __init__(self) -> None:
        self.words: list[dict[str, Any]] = []
        self._slices = 0
        self._silent = 0
        self._level: list[float] = []
        self._told = 0

    def hear(self, frame: bytes) -> list[dict[str, Any]]:
        heard: list[dict[str, Any]] = []
        for level in np.median(np.frombuffer(frame, "<i2").reshape(-1, 64), axis=1).tolist():
            self._slices += 1
            if level > 150:
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
