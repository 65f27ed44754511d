"""One WebSocket to a Whisper server: websockets' sans-I/O protocol on an asyncio transport.

The tick sends frames of many calls in one go, so sending must not await. `websockets.connect` offers only
awaitable sends; its protocol core, driven from here, does the same work synchronously. Incoming messages
wait in a bounded queue; when it is full the transport stops reading.
"""

import asyncio
import functools
import socket as network
import ssl
import time
from typing import Final, cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

from bridge import __version__, frames
from bridge.errors import BridgeError
from bridge.webhook.schedule import retry_after_s

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes: room for the word times of a 30 s final many times over."""

MAX_QUEUE: Final = 256
"""Messages that may wait unread before reading pauses."""

WRITE_BUFFER: Final = 64 * 1024
"""Bytes that may wait in the transport: two seconds of audio. Beyond it the session waits. As many may wait in
the kernel, which would else take megabytes before it tells that nobody reads."""

PING_INTERVAL_S: Final = 10.0
"""Seconds between pings, and the time that the answer may take."""

CLOSE_TIMEOUT_S: Final = 2.0
"""How long a peer may take to agree to a close."""


class ConnectFailed(BridgeError):  # noqa: N818 - names what happened, like the one below
    """The socket could not be opened.

    `status` is the server's HTTP answer, if it gave one, and `retry_after_s` what it asked for; `hung`
    that nothing came within the timeout.
    """

    def __init__(
        self,
        reason: str,
        status: int | None = None,
        *,
        retry_after_s: float | None = None,
        hung: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_s = retry_after_s
        self.hung = hung


class SocketClosed(Exception):  # noqa: N818 - a state that the reader meets, not always a fault
    """The socket is closed. `code` is the WebSocket close code, 1006 when there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".strip())
        self.code = code
        self.reason = reason


class WhisperSocket(asyncio.Protocol):
    """An open WebSocket. Made by `connect`; everything but `receive` and `close` is synchronous."""

    def __init__(self, protocol: ClientProtocol) -> None:
        self._ws = protocol
        self._transport: asyncio.Transport | None = None
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inbox: list[str] = []
        self._arrived = asyncio.Event()
        self._fragments: list[bytes] = []
        self.writable = False
        """Whether frames may be sent now: the socket is open and its write buffer is not full."""
        self._is_open = False
        self._room = True
        self._reading = True
        self._closing = False
        self._ping: asyncio.TimerHandle | None = None
        self._ping_sent = False

    @classmethod
    async def connect(cls, url: str, *, api_key: str, timeout: float) -> "WhisperSocket":
        """Open a socket within `timeout` seconds; raises `ConnectFailed`. TLS is verified; redirects are not followed."""
        try:
            uri = parse_uri(url)
        except InvalidURI as error:
            raise ConnectFailed("the endpoint's URL is not a WebSocket URL") from error
        protocol = ClientProtocol(uri, max_size=MAX_MESSAGE)
        request = protocol.connect()
        request.headers["User-Agent"] = f"whisper-bridge/{__version__}"
        if api_key:
            request.headers["Authorization"] = f"Api-Key {api_key}"
        protocol.send_request(request)
        tls = _tls() if uri.secure else None
        socket = cls(protocol)
        try:
            async with asyncio.timeout(timeout):
                await socket._open(uri.host, uri.port, tls)
        except TimeoutError as error:
            late = f"{uri.host} did not open the socket within {timeout:.0f} s"
            raise ConnectFailed(late, hung=True) from error
        except InvalidStatus as error:
            status = error.response.status_code
            asked = next(iter(error.response.headers.get_all("Retry-After")), None)
            raise ConnectFailed(
                f"{uri.host} refused the socket with HTTP {status}",
                status,
                retry_after_s=retry_after_s(asked, time.time()),
            ) from error
        except (OSError, InvalidHandshake, ValueError) as error:  # ValueError: a name that cannot be a host
            raise ConnectFailed(f"{uri.host}:{uri.port} could not be reached: {error}") from error
        return socket

    @property
    def unsent(self) -> int:
        """Bytes in the write buffer."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def unread(self) -> bool:
        """Whether messages wait to be received."""
        return bool(self._inbox)

    def send_frame(self, pcm: bytes) -> None:
        """Send one binary message of `frames.AUDIO`. Silently nothing once the socket is closing: `receive` tells."""
        if self._is_open and self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames.audio(pcm))

    def send_text(self, text: str) -> None:
        """Send one text message."""
        if self._is_open:
            self._ws.send_text(text.encode())
            self._flush()

    async def receive(self) -> str:
        """The next message; raises `SocketClosed` after the last one."""
        while not self._inbox:
            if self._lost.done():
                raise SocketClosed(int(self._ws.close_code or 1006), self._ws.close_reason or "")
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.pop(0)
        if not self._reading and len(self._inbox) < MAX_QUEUE // 2:
            self._reading = True
            if self._transport is not None and not self._lost.done():
                self._transport.resume_reading()
        return message

    async def close(self) -> None:
        """Close with 1000; within `CLOSE_TIMEOUT_S` either the server agrees or the connection is cut."""
        if self._is_open:
            self._ws.send_close(1000)
            self._flush()
            self._look()
        if not self._reading and self._transport is not None:
            self._inbox.clear()
            self._reading = True
            self._transport.resume_reading()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.shield(self._lost)
        except TimeoutError:
            pass  # it is cut below
        finally:
            self.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        if self._ping is not None:
            self._ping.cancel()
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the opening handshake."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if (connection := self._transport.get_extra_info("socket")) is not None:
            connection.setsockopt(network.SOL_SOCKET, network.SO_SNDBUF, WRITE_BUFFER)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Feed the protocol and act on what comes out."""
        self._ws.receive_data(data)
        self._advance()

    def eof_received(self) -> None:
        """Tell the protocol; the transport closes itself."""
        self._ws.receive_eof()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake whoever waits."""
        if self._ws.state is not State.CLOSED:
            self._ws.receive_eof()
        self._look()
        if self._ping is not None:
            self._ping.cancel()
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("it was closed in the handshake"))
            self.opened.exception()  # the opener may have given up already
        self._lost.set_result(None)
        self._arrived.set()

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self._room = False
        self._look()

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        self._room = True
        self._look()

    async def _open(self, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, host, port, ssl=tls)
            await self.opened
        except BaseException:  # cancelled too, perhaps in the moment in which it opened
            self.abort()
            raise

    def _advance(self) -> None:
        for event in self._ws.events_received():
            if isinstance(event, Response):
                self._handshake_done()
            elif isinstance(event, Frame):
                self._frame(event)
        if not self.opened.done() and self._ws.handshake_exc is not None:
            self.opened.set_exception(self._ws.handshake_exc)
        self._flush()
        self._look()
        if self._ws.close_expected() and not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self.abort)  # a peer that never hangs up

    def _look(self) -> None:
        """Learn whether frames may be sent; to ask for each one would cost more than the frame."""
        self._is_open = self._ws.state is State.OPEN
        self.writable = self._is_open and self._room

    def _handshake_done(self) -> None:
        if self.opened.done() or self._ws.handshake_exc is not None:
            return
        self.opened.set_result(None)
        self._ping = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._keepalive)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._fragments.append(bytes(frame.data))
            if frame.fin:
                message = b"".join(self._fragments)
                self._fragments.clear()
                self._inbox.append(message.decode(errors="replace"))
                self._arrived.set()
                if len(self._inbox) >= MAX_QUEUE and self._reading and self._transport is not None:
                    self._reading = False
                    self._transport.pause_reading()
        elif frame.opcode is Opcode.PONG:
            self._ping_sent = False

    def _keepalive(self) -> None:
        if self._ping_sent and self._reading:
            self.abort()
            return
        self._ping_sent = True
        if self._is_open:
            self._ws.send_ping(b"")
            self._flush()
        self._ping = asyncio.get_running_loop().call_later(PING_INTERVAL_S, self._keepalive)

    def _flush(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        for data in self._ws.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()


@functools.cache
def _tls() -> ssl.SSLContext:
    """The default, verifying context, made once: loading the certificates takes tens of milliseconds."""
    return ssl.create_default_context()
