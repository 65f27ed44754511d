"""What a stream's socket brings, on its way to the stream's call."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from bridge import log, metrics
from bridge.call.call import Call
from bridge.twilio.allowance import Ahead
from bridge.twilio.media import Dtmf, Event, Ignored, Media, MediaStream, Refused, Start, Stop
from bridge.twilio.socket import Socket, Unruly

START_S: Final = 5.0
"""A socket that has not said `start` by then is closed."""

_logger = log.get(__name__)


class Feed:
    """One socket, read from `start` to `stop`; `admit` finds the call of a stream that may be transcribed."""

    def __init__(
        self,
        socket: Socket,
        admit: Callable[[Start], Awaitable[Call | Refused]],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.call: Call | None = None
        self.refused: Refused | None = None
        self.over = False
        self._socket = socket
        self._admit = admit
        self._monotonic = monotonic
        self._stream = MediaStream()
        self._generation = 0

    async def run(self) -> None:
        """Read until the stream is over, or the socket closed.

        Raises `TimeoutError` when the stream does not start in time, and `Unruly`.
        """
        await self._find()
        if self.call is not None and not self.over:
            await self._socket.each(self._take)

    def refuse(self, refused: Refused) -> None:
        """Count and log why the stream is not transcribed."""
        self.refused = refused
        self.over = True
        metrics.REFUSALS.labels(refused.why).inc()
        _logger.warning("stream_refused", why=refused.why, sentence=refused.sentence)

    def end(self) -> None:
        """The socket is closed: without a `stop` before it, the call's stream was cut."""
        call = self.call
        if call is not None and not call.ending and call.carrier.generation == self._generation:
            call.cut("disconnected")

    async def _find(self) -> None:
        """Read until it is known which call this is the stream of, or that it is of none."""
        async with asyncio.timeout(START_S) as patience:
            while self.call is None and not self.over and (text := await self._socket.text()) is not None:
                for event in self._stream.receive(text):
                    if isinstance(event, Start):
                        patience.reschedule(None)
                        metrics.MESSAGES.labels("start").inc()
                        await self._begin(event)
                    else:
                        self._act(event)

    def _take(self, text: bytes) -> bool:
        """Bring a message to the call; whether more are wanted."""
        call = self.call
        if call is None or call.ending or call.carrier.generation != self._generation:
            return call is not None and call.leaving  # one that is handed over is closed by that
        media = self._stream.media(text)
        if media is not None:
            call.media(media.track, self._believed(media.timestamp_ms), media.audio)
            return True
        for event in self._stream.receive(text):
            self._act(event)
        return not self.over

    async def _begin(self, start: Start) -> None:
        admitted = await self._admit(start)
        if isinstance(admitted, Refused):
            self.refuse(admitted)
        else:
            self.call, self._generation = admitted, admitted.carrier.generation

    def _act(self, event: Event) -> None:
        """Bring what came to the call."""
        if isinstance(event, Media) and self.call is not None:
            self.call.media(event.track, self._believed(event.timestamp_ms), event.audio)
        elif isinstance(event, Ignored):
            metrics.MESSAGES_IGNORED.labels(event.why).inc()
        elif isinstance(event, Refused):
            self.refuse(event)
        elif self.call is None:
            metrics.MESSAGES_IGNORED.labels("no_call").inc()
        elif isinstance(event, Dtmf):
            metrics.MESSAGES.labels("dtmf").inc()
            self.call.dtmf(event.digit)
        elif isinstance(event, Stop):
            metrics.MESSAGES.labels("stop").inc()
            self.call.end("hangup")
            self.over = True

    def _believed(self, timestamp_ms: int | None) -> int | None:
        """The timestamp of audio, unless it is one that cannot be yet. Raises `Unruly`."""
        allowance = self._socket.allowance
        if timestamp_ms is None or timestamp_ms <= allowance.believed_ms:
            return timestamp_ms
        ahead = allowance.ahead(timestamp_ms, self._monotonic())
        if ahead is Ahead.NO:
            return timestamp_ms
        metrics.AUDIO_ANOMALIES.labels("ahead").inc()
        if ahead is Ahead.FAR:
            sentence = (
                "the audio is a minute ahead of time (twilio.max_speed is for calls that are simulated)"
            )
            raise Unruly(Refused("audio_ahead", sentence))
        return None
