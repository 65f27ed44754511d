"""One media stream: Twilio's end of the WebSocket, paced by an absolute schedule."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping, MutableSequence
from typing import Final, Literal, cast

import aiohttp

from bridge.local.twilio.frame import text
from bridge.local.twilio.message import CONNECTED, Writer
from bridge.local.twilio.pacer import Pacer
from bridge.local.twilio.report import StreamReport
from bridge.local.twilio.script import FRAME_BYTES, FRAME_MS, Beat, Script, beats
from bridge.local.twilio.socket import MediaSocket
from bridge.local.twilio.twiml import Stream, Track

HANDSHAKE_S: Final = 10.0
SEND_S: Final = 10.0
"""A bridge that has not read for this long is taken for dead."""
CLOSE_S: Final = 5.0

_SILENCE: Final = b"\xff" * FRAME_BYTES
_MAX_MESSAGE: Final = 1 << 20
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, zero seconds: closing sends RST instead of FIN."""


class MediaStream:
    """Opens the socket, plays the call into it, and reports. One object, one `run`."""

    def __init__(
        self,
        stream: Stream,
        report: StreamReport,
        writer: Writer,
        *,
        audio: Mapping[Track, bytes],
        script: Script,
        sent: MutableSequence[float],
    ) -> None:
        self.stream = stream
        self._report = report
        self._writer = writer
        self._audio = audio
        self._script = script
        self._sent = sent
        self._closing = False
        self.opened = asyncio.Event()
        """Set when the handshake is through, whatever came of it."""
        self.stopped = asyncio.Event()
        """To be set when this stream is to end, and the call is not."""

    async def run(
        self, target: str, signature: str, first: Callable[[], Beat], frames: int, over: asyncio.Event
    ) -> None:
        """Play the call to `target` up to `frames`, until they or the call are `over`.

        `first` is asked when the socket is open: with which frame to begin, and in how many seconds. `over` is set
        when the audio is: whoever speaks then hangs up. Nothing is raised for what the bridge does; it is written
        into the report.
        """
        async with aiohttp.ClientSession(ws_response_class=MediaSocket) as session:
            try:
                socket_ = await self._open(session, target, signature)
            finally:
                self.opened.set()
            if socket_ is None:
                return
            tasks = (
                asyncio.create_task(self._send(socket_, first(), frames)),
                asyncio.create_task(self._read(socket_)),
                asyncio.create_task(over.wait()),
                asyncio.create_task(self.stopped.wait()),
            )
            try:
                await self._play(socket_, tasks, over)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _open(self, session: aiohttp.ClientSession, target: str, signature: str) -> MediaSocket | None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                opened = await session.ws_connect(
                    target,
                    headers={"X-Twilio-Signature": signature, "User-Agent": "Twilio.TmeWs/1.0"},
                    timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                    max_msg_size=_MAX_MESSAGE,
                )
        except aiohttp.WSServerHandshakeError as refused:
            self._report.status = refused.status
            self._report.error = f"31920: the handshake was answered with {refused.status} instead of 101"
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._report.error = f"31901: no answer to the connection request ({type(error).__name__})"
        else:
            self._report.status = 101
            return cast("MediaSocket", opened)
        return None

    async def _play(
        self,
        ws: MediaSocket,
        tasks: tuple[
            asyncio.Task[None], asyncio.Task[None], asyncio.Task[Literal[True]], asyncio.Task[Literal[True]]
        ],
        over: asyncio.Event,
    ) -> None:
        """Wait for whichever ends the stream first, and end it properly."""
        sending, reading, hung_up, stopped = tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and sending.exception() is None:
            over.set()
            await self._end(ws, reading)
        elif (hung_up.done() or stopped.done()) and not reading.done():
            sending.cancel()  # no audio comes after `stop`
            await self._stop(ws)
        elif sending.done() and isinstance(sending.exception(), TimeoutError):
            self._report.error = f"31903: the bridge has read nothing for {SEND_S:.0f} s"
        else:
            # Sending fails a moment before the reader learns why.
            await asyncio.wait({reading}, timeout=CLOSE_S)
            if self._report.closed_by_bridge and not self._report.error:
                self._report.error = _close_error(self._report.close_code)

    async def _send(self, ws: MediaSocket, begin: Beat, frames: int) -> None:
        """Everything from `connected` to the last frame. Raises ConnectionError or TimeoutError."""
        script, stream, write, report = self._script, self.stream, self._writer, self._report
        report.first_frame = first = begin.frame
        digits = sorted(script.digits, key=lambda digit: digit.at_ms) if stream.bidirectional else []
        digits = [digit for digit in digits if digit.at_ms >= first * FRAME_MS]
        audio = [(track, self._audio.get(track, b"")) for track in stream.tracks]
        sent = self._sent

        def act(frame: int, late_s: float) -> bool:
            """One moment of sending: what is due leaves in one piece."""
            if ws.clogged:
                return False
            report.late_s.append(late_s)
            now = time.time()
            while len(sent) <= frame:
                sent.append(now)
            at_ms = frame * FRAME_MS
            timestamp = script.first_timestamp_ms + at_ms - first * FRAME_MS
            at = frame * FRAME_BYTES
            due = b""
            for track, samples in audio:
                if not script.holes or script.sends(track, at_ms):
                    payload = samples[at : at + FRAME_BYTES]
                    if len(payload) < FRAME_BYTES:
                        payload += _SILENCE[len(payload) :]
                    due += write.media_frame(track, timestamp, payload)
                    report.frames += 1
            if due:
                report.first_at = report.first_at or now
            while digits and digits[0].at_ms < at_ms + FRAME_MS:
                due += text(write.dtmf(digits.pop(0).digit))
            if due:
                ws.write(due)
            return True

        await asyncio.sleep(begin.due_s)  # then `start` and the first frame leave together
        ws.write(text(CONNECTED) + text(write.start(stream.tracks, stream.parameters)))
        pacer = Pacer(beats(script, frames, first), act, patience_s=SEND_S)
        await pacer.run()
        over = pacer.begun + (frames - first) * FRAME_MS / 1000 / script.speed
        await asyncio.sleep(max(0.0, over - time.monotonic()))

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """What the bridge sends; returns when the socket is closed or the bridge broke the protocol."""
        async for message in ws:
            if message.type is not aiohttp.WSMsgType.TEXT or not self.stream.bidirectional:
                self._report.error = "31924: the bridge sent something on a stream that only listens"
                return
            await self._answer(ws, message.data)
        if not self._closing:
            self._report.closed_by_bridge = True
            self._report.close_code = _code(ws)

    async def _answer(self, ws: aiohttp.ClientWebSocketResponse, text: str) -> None:
        """Nothing is played here, so a mark comes back at once, as it does when nothing is buffered."""
        try:
            message = json.loads(text)
            event = message["event"]
            mark = message["mark"]["name"] if event == "mark" else None
        except (ValueError, KeyError, TypeError):
            self._report.error = "31951: invalid message from the bridge"
            return
        if event not in {"media", "mark", "clear"}:
            self._report.error = "31951: invalid message from the bridge"
        elif mark is not None:
            await self._text(ws, self._writer.mark(str(mark)))

    async def _end(self, ws: aiohttp.ClientWebSocketResponse, reading: asyncio.Task[None]) -> None:
        """The call is over: end the stream the way the script says."""
        if self._script.ending == "stop":
            await self._stop(ws)
        elif self._script.ending == "open":
            await asyncio.wait({reading}, timeout=self._script.open_s)
        else:
            connection: socket.socket | None = ws.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    async def _stop(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        """The `stop` message and a proper close."""
        try:
            await self._text(ws, self._writer.stop())
        except (ConnectionError, TimeoutError) as error:
            self._report.error = f"31903: the connection broke before the end ({type(error).__name__})"
            return
        self._closing = True
        await ws.close(code=1000)
        self._report.close_code = _code(ws)

    @staticmethod
    async def _text(ws: aiohttp.ClientWebSocketResponse, message: str) -> None:
        async with asyncio.timeout(SEND_S):
            await ws.send_str(message)


def _code(ws: aiohttp.ClientWebSocketResponse) -> int | None:
    return None if ws.close_code is None else int(ws.close_code)


def _close_error(code: int | None) -> str:
    """Twilio's error for a socket that the bridge closed with `code`; empty for a proper close."""
    if code in {None, 1006}:
        return "31903: the bridge dropped the connection without a close"
    return "" if code in {1000, 1001} else f"31921: the bridge closed the socket with {code}"
