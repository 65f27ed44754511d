"""Telephone calls in numbers: both tracks, a message every 20 ms on an absolute schedule, every one timed."""

import asyncio
import time
from array import array
from typing import Final, cast
from urllib.parse import urlsplit

from websockets.utils import generate_key

from bridge.errors import BridgeError
from bridge.local.twilio.account import Account, new_sid
from bridge.local.twilio.message import CONNECTED, Writer
from bridge.local.twilio.twiml import Stream, Track
from bridge.local.twilio.webhook import CallFailedError, Webhooks, voice_form
from tests.benchmarks import tag
from tests.benchmarks.wire import Frames, Opcode, frame, masked

PERIOD_S: Final = 0.02002
"""From one message to the next: 20 ms by a clock that is 0.1 % slow, so that within 4 s even a single call has
met the bridge's tick, every 4 ms, in every phase."""

ANSWER_S: Final = 15.0


class LoadCall(asyncio.Protocol):
    """One call. `numbers` are what its tracks say; see `tag`."""

    def __init__(self, account: Account, numbers: dict[Track, int]) -> None:
        self.call_sid = new_sid("CA")
        self.numbers = numbers
        self.due: array[float] = array("d")
        """When each 20 ms should have been sent, on the monotonic clock ..."""
        self.sent: dict[Track, array[float]] = {track: array("d") for track in numbers}
        """... and when each message of a track was written to the socket."""
        self._account = account
        self._writer = Writer(account.sid, self.call_sid, new_sid("MZ"))
        self._audio = {track: tag.spoken(number) for track, number in numbers.items()}
        self._loop = asyncio.get_running_loop()
        self._answered: asyncio.Future[str] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()
        self._spoken: asyncio.Future[None] = self._loop.create_future()
        self._answer = b""
        self._frames = Frames()
        self._transport: asyncio.Transport
        self._next: list[tuple[array[float], bytes]] = []
        self._begin = self._until = 0.0

    async def run(self, webhooks: Webhooks, voice_url: str, begin: float, until: float) -> None:
        """Ring, stream from `begin` to `until` (monotonic seconds), hang up. Raises `BridgeError`.

        `voice_url` is what Twilio would sign; `webhooks` know where that is.
        """
        try:
            stream = await self._ring(webhooks, voice_url)
            await self._open(stream.url, webhooks.reach(stream.url) or stream.url)
        except (CallFailedError, OSError, TimeoutError) as error:
            raise BridgeError(f"a call could not be opened: {error or 'no answer'}") from error
        try:
            self._text(CONNECTED)
            self._text(self._writer.start(stream.tracks, stream.parameters))
            self._begin, self._until = begin, until
            self._prepare()
            self._loop.call_at(begin, self._beat)
            await asyncio.wait({self._spoken, self._lost}, return_when=asyncio.FIRST_COMPLETED)
            if self._lost.done():
                raise BridgeError("the bridge closed a stream before the call was over")
            self._text(self._writer.stop())
            async with asyncio.timeout(ANSWER_S):
                await self._lost
        except TimeoutError as error:
            raise BridgeError("the bridge did not close the stream of a call that is over") from error
        finally:
            self._transport.abort()

    async def _ring(self, webhooks: Webhooks, voice_url: str) -> Stream:
        form = voice_form(self._account.sid, self.call_sid, "ringing", "+15550100", "+15550199")
        target = webhooks.reach(voice_url) or voice_url
        for verb in await webhooks.document(voice_url, target, "POST", form):
            if isinstance(verb, Stream):
                return verb
        raise CallFailedError("the bridge answered without a stream.")

    async def _open(self, signed_url: str, target: str) -> None:
        url = urlsplit(target)
        async with asyncio.timeout(ANSWER_S):
            await self._loop.create_connection(lambda: self, url.hostname or "", url.port or 80)
            request = (
                f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {generate_key()}\r\n"
                f"X-Twilio-Signature: {self._account.signature(signed_url)}\r\n\r\n"
            )
            self._transport.write(request.encode())
            status = await self._answered
        if " 101 " not in status:
            raise CallFailedError(f"the handshake was answered with {status}.")

    def _text(self, text: str) -> None:
        self._transport.write(frame(Opcode.TEXT, text.encode(), mask=True))

    def _prepare(self) -> None:
        """Write the next messages ahead of time, so that nothing but sending happens when they are due."""
        at_ms = len(self.due) * 20
        self._next = [
            (
                self.sent[track],
                frame(Opcode.TEXT, self._writer.media(track, at_ms, audio).encode(), mask=True),
            )
            for track, audio in self._audio.items()
        ]

    def _beat(self) -> None:
        if self._transport.is_closing():
            return
        for sent, message in self._next:
            sent.append(time.monotonic())
            self._transport.write(message)
        self.due.append(self._begin + len(self.due) * PERIOD_S)
        following = self._begin + len(self.due) * PERIOD_S
        if following < self._until:
            self._prepare()
            self._loop.call_at(following, self._beat)
        else:
            self._spoken.set_result(None)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._answered.done():
            self._answer += data
            head, end, data = self._answer.partition(b"\r\n\r\n")
            if not end:
                return
            self._answered.set_result(head.decode().partition("\r\n")[0])
        for opcode, payload, key in self._frames.feed(data):
            said = masked(payload, key) if key else payload
            if opcode == Opcode.PING:
                self._transport.write(frame(Opcode.PONG, said, mask=True))
            elif opcode == Opcode.CLOSE:
                self._transport.write(frame(Opcode.CLOSE, said, mask=True))
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answered.done():
            self._answered.set_exception(exc or ConnectionResetError("closed in the handshake"))
        self._lost.set_result(None)
