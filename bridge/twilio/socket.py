"""One of Twilio's WebSockets: read within limits, and closed in a given time, whatever its peer does."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from bridge import metrics
from bridge.twilio.allowance import OWED_S, RATE, Ahead, Allowance
from bridge.twilio.media import Refused

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one WebSocket message, at most; Twilio's have about 350."""

HEARTBEAT_S: Final = 15.0
"""Pings keep proxies from closing the socket of a call on hold; a peer that answers none for half as long is gone."""

WRITE_S: Final = 2.0
"""How long 64 KiB may wait to be read. We write pings and pongs: who has so many does not read at all."""

CLOSE_S: Final = 2.0
"""How long the peer may take to close its side."""

EARLY: Final = 2 * 1024 * 1024
"""Characters that are kept while a stream is admitted: a minute of two tracks."""

_T = TypeVar("_T")

_CLOSED: Final = frozenset({WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED})


class Unruly(Exception):  # noqa: N818 - says what the peer was
    """The peer does what no telephone call does: close the socket with 1008."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.sentence)
        self.refused = refused


class Socket:
    """`response` is aiohttp's. The clock is monotonic, in seconds; `speed` as in `Allowance`."""

    def __init__(self, speed: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.response = web.WebSocketResponse(
            compress=False,
            heartbeat=HEARTBEAT_S,
            max_msg_size=MAX_MESSAGE + 1,
            timeout=CLOSE_S,
            autoping=False,
        )
        self._allowance = Allowance(monotonic(), speed)
        self._monotonic = monotonic
        self._transport: asyncio.Transport | None = None
        self._early: deque[str | Unruly | None] = deque()

    async def open(self, request: web.Request) -> None:
        """Answer the upgrade. Raises 400 if it is none."""
        await self.response.prepare(request)
        self._transport = request.transport

    async def meanwhile(self, work: Awaitable[_T]) -> _T:
        """What `work` returns. What comes until then is kept for `text`, and beyond `EARLY` in the socket."""
        reading = asyncio.create_task(self._keep())
        try:
            return await work
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def text(self) -> str | None:
        """The next text message; None once the socket is closed. Raises `Unruly`."""
        if not self._early:
            return await self._text()
        early = self._early.popleft()
        if isinstance(early, Unruly):
            raise early
        return early

    async def _keep(self) -> None:
        try:
            kept = 0
            while kept < EARLY:
                self._early.append(text := await self._text())
                if text is None:
                    return
                kept += len(text)
        except Unruly as unruly:
            self._early.append(unruly)

    async def _text(self) -> str | None:
        while True:
            message = await self.response.receive()
            if message.type in _CLOSED:
                return None
            if message.type is WSMsgType.ERROR:
                _count(message.data)
                return None
            self._allowance.messages -= 1
            if self._allowance.messages < 0 and not self._allowance.more(self._monotonic()):
                sentence = (
                    f"more than {RATE} messages a second, and more than {OWED_S:.0f} s of these at once"
                )
                raise Unruly(Refused("message_rate", sentence))
            if message.type is WSMsgType.TEXT:
                text: str = message.data
                return text
            if message.type is WSMsgType.PING:
                await self._pong(message.data)
            elif message.type is not WSMsgType.PONG:
                metrics.MESSAGES_IGNORED.labels("not_text").inc()

    def believed(self, timestamp_ms: int | None) -> int | None:
        """The timestamp of audio, unless it is one that cannot be yet. Raises `Unruly`."""
        if timestamp_ms is None or timestamp_ms <= self._allowance.believed_ms:
            return timestamp_ms
        ahead = self._allowance.ahead(timestamp_ms, self._monotonic())
        if ahead is Ahead.NO:
            return timestamp_ms
        metrics.AUDIO_ANOMALIES.labels("ahead").inc()
        if ahead is Ahead.FAR:
            sentence = (
                "the audio is a minute ahead of time (twilio.max_speed is for calls that are simulated)"
            )
            raise Unruly(Refused("audio_ahead", sentence))
        return None

    async def close(self, code: int = WSCloseCode.OK, message: bytes = b"") -> None:
        """Close it. What a peer that does not read was to get is thrown away."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WRITE_S + CLOSE_S):
                await self.response.close(code=code, message=message)
        if self._transport is not None and self._transport.get_write_buffer_size():
            self._transport.abort()

    async def _pong(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await self.response.pong(data)
        except TimeoutError:
            sentence = f"the peer has read nothing for {WRITE_S:.0f} s"
            raise Unruly(Refused("not_reading", sentence)) from None
        except ConnectionError:
            return  # the next message says that it is closed


def _count(error: object) -> None:
    """Count what ended a socket that nobody closed; a connection that broke is no fault of its peer."""
    if isinstance(error, WebSocketError):
        too_big = error.code == WSCloseCode.MESSAGE_TOO_BIG
        metrics.REFUSALS.labels("message_size" if too_big else "no_websocket").inc()
    elif isinstance(error, TimeoutError):
        metrics.REFUSALS.labels("no_pong").inc()
