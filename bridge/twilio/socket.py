"""One of Twilio's WebSockets: read within limits, and closed in a given time, whatever its peer does.

aiohttp answers the upgrade; from then on the connection is ours. A whole text frame, which is nearly everything that
comes, is unmasked and handed on in the same call that brought its bytes: no queue, no future, no task. All other
frames go through websockets' protocol, which knows the rules.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

from aiohttp import WSCloseCode, web
from websockets.exceptions import PayloadTooBig
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side, State

from bridge import frames, metrics
from bridge.twilio.allowance import OWED_S, RATE, Allowance
from bridge.twilio.media import Refused
from bridge.twilio.upgrade import upgraded

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one WebSocket message, at most; Twilio's have about 350."""

HEARTBEAT_S: Final = 7.5
"""A peer that has said nothing for twice as long is sent a ping, which keeps proxies from closing the socket of a
call on hold. One that then says nothing for so long is gone."""

WRITE_S: Final = 2.0
"""How long 64 KiB may wait to be read. We write pings and pongs: who has so many does not read at all."""

CLOSE_S: Final = 2.0
"""How long the peer may take to close its side."""

LONGEST_REASON: Final = 123  # bytes that a close frame has room for, beside its code

EARLY: Final = 2 * 1024 * 1024
"""Bytes that are kept while a stream is admitted: a minute of two tracks. What is more waits in the connection."""

Take = Callable[[bytes], bool]
"""Takes a text message; False if it wants no more."""


class Unruly(Exception):  # noqa: N818 - says what the peer was
    """The peer does what no telephone call does: close the socket with 1008."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.sentence)
        self.refused = refused


class Socket(asyncio.Protocol):
    """The clock is monotonic, in seconds; `speed` as in `Allowance`."""

    def __init__(self, speed: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ws = Protocol(Side.SERVER, state=State.OPEN, max_size=MAX_MESSAGE)
        self.allowance = Allowance(monotonic(), speed)
        """What may come on it."""
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()
        self._news = asyncio.Event()
        self._fault: Exception | None = None
        self._kept: list[bytes] = []
        self._kept_bytes = 0
        self._take: Take = self._keep
        self._rest = bytearray()  # the beginning of a frame
        self._lacking = 0  # with so many bytes more its length is known, or it is whole
        self._fragments: bytearray | None = None  # of a message that is not whole
        self._over = self._broken = (
            False  # closed by one side; because the peer does not keep to the protocol
        )
        self._silent = 0  # beats since the peer said something
        self._beat: asyncio.TimerHandle | None = None
        self._blocked: asyncio.TimerHandle | None = None  # since the peer reads nothing

    async def open(self, request: web.Request) -> web.StreamResponse:
        """Answer the upgrade; returns what aiohttp's handler has to return. Raises 400 if it is none."""
        return await upgraded(request, self)

    async def text(self) -> bytes | None:
        """The next text message; None once the socket is closed. Raises `Unruly`."""
        while not self._kept:
            if self._fault is not None:
                raise self._fault
            if self._over:
                return None
            self._news.clear()
            await self._news.wait()
        text = self._kept.pop(0)
        self._kept_bytes -= len(text)
        self._read_on()
        return text

    async def each(self, take: Take) -> None:
        """Bring every text message to `take` as it comes, until it wants no more or the socket is closed.

        Raises `Unruly`, and what `take` raises.
        """
        while self._kept:
            if not take(self._kept.pop(0)):
                return
        self._kept_bytes = 0
        self._take = take
        self._read_on()
        while self._take is take and self._fault is None and not self._over:
            self._news.clear()
            await self._news.wait()
        self._take = self._drop
        if self._fault is not None:
            raise self._fault

    async def close(self, code: int = WSCloseCode.OK, message: str = "") -> None:
        """Close it. What a peer that does not read was to get is thrown away."""
        self._take = self._drop
        self._kept.clear()
        self._kept_bytes = 0
        self._read_on()
        if not self._over and self._transport is not None:
            self._over = True
            self._ws.send_close(code, message.encode()[:LONGEST_REASON].decode(errors="ignore"))
            self._flush()
            self._news.set()
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._lost.wait()
        except TimeoutError:
            pass  # it is cut below
        finally:
            if self._transport is not None:
                self._transport.abort()

    # What asyncio calls.

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames, and act on each that is whole."""
        self._silent = 0
        plain = not (self._rest or self._over or self._fragments is not None)
        text = frames.sole_text(data) if plain else None
        if text is None or not text.isascii():
            self._cut(data)
        elif self._allowed():
            self._bring(text)

    def _cut(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            self._lacking -= len(data)
            if self._lacking > 0:
                return
            data = bytes(self._rest)
            self._rest.clear()
        begin, size = 0, len(data)
        self._lacking = 1
        while begin + 2 <= size and not self._over:
            body, end = frames.span(data, begin)
            if end > size and end - begin <= MAX_MESSAGE + frames.LONGEST_HEAD:
                self._lacking = end - size
                break
            text = frames.text(data, begin, body, end) if end - body <= MAX_MESSAGE else None
            if text is None or self._fragments is not None or not text.isascii():
                self._other(data[begin:end])
            elif self._allowed():
                self._bring(text)
            begin = end
        if begin < size:
            if self._over:
                self._other(data[begin:])
            else:
                self._rest += data[begin:]

    def eof_received(self) -> None:
        """The peer says no more; the transport closes itself when it has read what waits for it, if it does."""
        self._over = True
        self._news.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._beat = self._loop.call_later(HEARTBEAT_S, self._on_beat)

    def connection_lost(self, _error: Exception | None) -> None:
        """Wake whoever waits."""
        for timer in (self._beat, self._blocked):
            if timer is not None:
                timer.cancel()
        self._over = True
        self._lost.set()
        self._news.set()

    def pause_writing(self) -> None:
        """The peer reads nothing."""
        self._blocked = self._loop.call_later(WRITE_S, self._on_blocked)

    def resume_writing(self) -> None:
        """It has read again."""
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None

    def _bring(self, text: bytes) -> None:
        try:
            if not self._take(text):
                self._take = self._drop
                self._news.set()
        except Exception as fault:  # noqa: BLE001 - it is raised where the socket is read, not into the event loop
            self._fail(fault)

    def _keep(self, text: bytes) -> bool:
        self._kept.append(text)
        self._kept_bytes += len(text)
        if self._kept_bytes >= EARLY and self._transport is not None:
            self._transport.pause_reading()
        self._news.set()
        return True

    @staticmethod
    def _drop(_text: bytes) -> bool:
        return True

    def _read_on(self) -> None:
        if self._kept_bytes < EARLY and self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def _allowed(self) -> bool:
        """Whether one more message may come now."""
        self.allowance.messages -= 1
        if self.allowance.messages >= 0 or self.allowance.more(self._monotonic()):
            return True
        sentence = f"more than {RATE} messages a second, and more than {OWED_S:.0f} s of these at once"
        self._fail(Unruly(Refused("message_rate", sentence)))
        return False

    def _other(self, frame: bytes) -> None:
        """A frame that is no whole text message."""
        self._ws.receive_data(frame)
        for event in self._ws.events_received():
            if isinstance(event, Frame) and (not event.fin or self._allowed()):
                self._frame(event)
        error = self._ws.parser_exc
        if error is not None and not self._broken:
            self._broken = True
            metrics.REFUSALS.labels(
                "message_size" if isinstance(error, PayloadTooBig) else "no_websocket"
            ).inc()
        self._over = self._ws.state is not State.OPEN
        self._flush()
        self._news.set()

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.TEXT:
            self._fragments = bytearray()
        if self._fragments is not None and frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._fragments += frame.data
            if frame.fin:
                text, self._fragments = bytes(self._fragments), None
                self._whole(text)
        elif frame.opcode in {Opcode.BINARY, Opcode.CONT}:
            metrics.MESSAGES_IGNORED.labels("not_text").inc()

    def _whole(self, text: bytes) -> None:
        try:
            text.decode()
        except UnicodeDecodeError:
            self._broken = True
            metrics.REFUSALS.labels("no_websocket").inc()
            self._ws.fail(CloseCode.INVALID_DATA, "the text is not UTF-8")
        else:
            self._bring(text)

    def _fail(self, fault: Exception) -> None:
        self._fault = self._fault or fault
        self._take = self._drop
        self._news.set()

    def _flush(self) -> None:
        """Write what websockets' protocol has to say; pongs not to a peer that reads nothing."""
        for data in self._ws.data_to_send():
            if self._transport is None or self._transport.is_closing():
                return
            if not data:
                self._transport.close()
            elif self._blocked is None:
                self._transport.write(data)

    def _on_blocked(self) -> None:
        self._fail(Unruly(Refused("not_reading", f"the peer has read nothing for {WRITE_S:.0f} s")))

    def _on_beat(self) -> None:
        self._beat = self._loop.call_later(HEARTBEAT_S, self._on_beat)
        self._silent += 1
        if self._silent == 2 and not self._over:
            self._ws.send_ping(b"")
            self._flush()
        elif self._silent > 2 and self._transport is not None and self._transport.is_reading():
            metrics.REFUSALS.labels("no_pong").inc()
            self._transport.abort()
