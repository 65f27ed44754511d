"""What Twilio asks of us over HTTP: TwiML for a call, the stream's socket, and word of what became of it."""

import asyncio
import functools
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web
from multidict import MultiDict

from bridge import log, metrics
from bridge.call.call import Call
from bridge.call.calls import Calls
from bridge.call.memo import About, our_number
from bridge.config import Config, NumberSettings
from bridge.twilio import twiml
from bridge.twilio.gate import Gate
from bridge.twilio.media import CALL_SID, Dtmf, Event, Ignored, Media, MediaStream, Refused, Start, Stop
from bridge.twilio.stream_token import TokenRefused

START_S: Final = 5.0
"""A socket that has not said `start` by then is closed."""

ADOPTED_S: Final = 10.0
"""How long a stream waits to learn whether its call is one that an earlier process left."""

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of one WebSocket message, at most; Twilio's have about 350."""

HEARTBEAT_S: Final = 20.0
"""Pings keep proxies from closing the socket of a call on hold, and find peers that are gone."""

STATUS_GRACE_S: Final = 3.0
"""`stream-stopped` comes on a connection of its own and may overtake the last audio by this much."""

_logger = log.get(__name__)


class TwilioRoutes:
    """The handlers under `/twilio/`. `unready` says why no new call can be taken, or nothing."""

    def __init__(
        self,
        config: Config,
        *,
        public_url: str,
        calls: Calls,
        spend: Callable[[str, float], Awaitable[bool]],
        unready: Callable[[], str],
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._gate = Gate(config, public_url, spend)
        self._calls = calls
        self._unready = unready
        self._wall = wall
        self._monotonic = monotonic
        self._addresses = twiml.Addresses(
            media=f"{self._gate.signatures.stream_origin}/twilio/media",
            stream_status=f"{public_url}/twilio/stream-status",
            resume=f"{public_url}/twilio/resume",
        )
        self._closing: set[asyncio.Task[None]] = set()
        self._sockets: weakref.WeakSet[web.WebSocketResponse] = weakref.WeakSet()

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post("/twilio/voice", self.voice),
            web.get("/twilio/media", self.media),
            web.post("/twilio/stream-status", self.stream_status),
            web.post("/twilio/resume", self.resume),
        ]

    async def close(self) -> None:
        """Close the sockets that are still open; Twilio goes on with the calls."""
        closing = [
            socket.close(code=WSCloseCode.GOING_AWAY, message=b"the bridge is stopping")
            for socket in self._sockets
        ]
        await asyncio.gather(*closing, *self._closing, return_exceptions=True)

    async def voice(self, request: web.Request) -> web.Response:
        """Answer a new call: the stream and the call flow; without the stream when we cannot take the call."""
        form = await self._gate.form(request)
        if reason := self._reason_against(form):
            metrics.VOICE_ANSWERS.labels("without_stream").inc()
            _logger.warning("call_not_streamed", call_sid=form.get("CallSid", "")[:64], reason=reason)
            return self._call_flow(form)
        return self._with_stream(form)

    async def resume(self, request: web.Request) -> web.Response:
        """The stream of a `<Connect>` is over, or a pause of ours ran out: the call goes on with its call flow.

        If its stream was lost with the process that had it, it begins again.
        """
        form = await self._gate.form(request)
        call = self._calls.get(form.get("CallSid", ""))
        if call is not None and call.waiting and not self._reason_against(form):
            return self._with_stream(form)
        metrics.VOICE_ANSWERS.labels("resume").inc()
        return self._call_flow(form)

    async def stream_status(self, request: web.Request) -> web.Response:
        """Twilio's word on a stream. One that stopped there is ended here, should its socket never say so."""
        form = await self._gate.form(request)
        event = form.get("StreamEvent", "")
        call = self._calls.get(form.get("CallSid", ""))
        if call is not None and event in {"stream-stopped", "stream-error"}:
            if event == "stream-error":
                error = form.get("StreamError", "")[:200]
                _logger.warning("stream_error", call_sid=call.about.call_sid, error=error)
            asyncio.get_running_loop().call_later(
                STATUS_GRACE_S, _stopped, call, form.get("StreamSid", ""), event.replace("-", "_")
            )
        return web.Response(status=204)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """The stream's socket, from `start` to `stop`. Refused before the upgrade if Twilio did not sign it."""
        self._gate.check_upgrade(request)
        if reason := self._unready():
            raise web.HTTPServiceUnavailable(text=reason, headers={"Retry-After": "5"})
        socket = web.WebSocketResponse(compress=False, heartbeat=HEARTBEAT_S, max_msg_size=MAX_MESSAGE + 1)
        await socket.prepare(request)
        self._sockets.add(socket)
        carried = _Carried(functools.partial(self._admit, functools.partial(self._hang_up, socket)))
        try:
            await _carry(socket, carried)
        except TimeoutError:
            carried.refuse(Refused("no_start", f"no start message came within {START_S:.0f} s"))
        finally:
            carried.end()
        if socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
            metrics.REFUSALS.labels("message_size").inc()
        if carried.refused is None:
            await socket.close()
        else:
            sentence = carried.refused.sentence.encode(errors="replace")
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=sentence[:120])
        return socket

    async def _admit(self, hang_up: Callable[[], None], start: Start) -> Call | Refused:
        """The call of a stream that may be transcribed."""
        at = self._monotonic()
        try:
            ticket = await self._gate.redeem(start, self._wall())
            async with asyncio.timeout(ADOPTED_S):
                await self._calls.expected(start.call_sid)
        except TokenRefused as refused:
            return Refused(f"token_{refused}", f"the stream's token or account is refused: {refused}")
        except TimeoutError:
            return Refused("outbox_down", "the outbox is down, and an earlier process left this call")
        if reason := self._unready():
            return Refused("unready", reason)
        if self._calls.has_ended(start.call_sid):
            return Refused("ended", "the call has been transcribed to its end")
        parties = (ticket.from_, ticket.to, ticket.direction)
        about = About(start.call_sid, start.account_sid, *parties, start.parameters)
        tracks = start.tracks or ["inbound"]
        settings = self._settings(*parties)
        return self._calls.start(about, settings, start.stream_sid, tracks, hang_up=hang_up, at=at)

    def _hang_up(self, socket: web.WebSocketResponse) -> None:
        """Close a stream's socket without waiting for it."""
        closing = asyncio.create_task(_closed(socket))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _reason_against(self, form: MultiDict[str]) -> str:
        """Why this call cannot be streamed; empty if it can."""
        call_sid = form.get("CallSid", "")
        if not CALL_SID.fullmatch(call_sid):
            return "the request has no valid CallSid"
        if not self._gate.is_ours(form.get("AccountSid", "")):
            return "the call belongs to another account"
        if self._calls.has_ended(call_sid):
            return "the call has been transcribed to its end"
        return self._unready()

    def _with_stream(self, form: MultiDict[str]) -> web.Response:
        metrics.VOICE_ANSWERS.labels("stream").inc()
        token = self._gate.issue(form, self._wall())
        return _xml(twiml.with_stream(self._settings_of(form), self._addresses, token))

    def _call_flow(self, form: MultiDict[str]) -> web.Response:
        return _xml(twiml.without_stream(self._settings_of(form), self._addresses))

    def _settings_of(self, form: MultiDict[str]) -> NumberSettings:
        return self._settings(form.get("From", ""), form.get("To", ""), form.get("Direction", ""))

    def _settings(self, from_: str, to: str, direction: str) -> NumberSettings:
        """The settings of our number in this call: the one called, or the one that calls."""
        return self._config.for_number(our_number(from_, to, direction))


class _Carried:
    """What one socket has brought so far."""

    def __init__(self, admit: Callable[[Start], Awaitable[Call | Refused]]) -> None:
        self.call: Call | None = None
        self.refused: Refused | None = None
        self.over = False
        self._admit = admit
        self._stream = MediaStream()
        self._generation = 0

    @property
    def _current(self) -> bool:
        """Whether the call still lives, and on this socket."""
        return self.call is not None and not self.call.ending and self.call.generation == self._generation

    def read(self, text: str) -> list[Event]:
        """What a message means."""
        if self.call is not None and not self._current:
            self.over = True
            return []
        return self._stream.receive(text)

    async def begin(self, start: Start) -> None:
        """Find the stream's call."""
        metrics.MESSAGES.labels("start").inc()
        admitted = await self._admit(start)
        if isinstance(admitted, Refused):
            self.refuse(admitted)
        else:
            self.call, self._generation = admitted, admitted.generation

    def act(self, event: Event) -> None:
        """Bring what came to the call."""
        if isinstance(event, Media) and self.call is not None:
            self.call.media(event.track, event.timestamp_ms, event.audio)
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

    def refuse(self, refused: Refused) -> None:
        """Count and log why the stream is not transcribed."""
        self.refused = refused
        self.over = True
        metrics.REFUSALS.labels(refused.why).inc()
        _logger.warning("stream_refused", why=refused.why, sentence=refused.sentence)

    def end(self) -> None:
        """The socket is closed: without a `stop` before it, the call's stream was cut."""
        if self.call is not None and self._current:
            self.call.end("disconnected")


async def _carry(socket: web.WebSocketResponse, carried: _Carried) -> None:
    """Read the socket until the stream is over; raises `TimeoutError` when it does not start in time."""
    async with asyncio.timeout(START_S) as patience:
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                metrics.MESSAGES_IGNORED.labels("not_text").inc()
                continue
            for event in carried.read(message.data):
                if isinstance(event, Start):
                    patience.reschedule(None)
                    await carried.begin(event)
                else:
                    carried.act(event)
            if carried.over:
                break


def _stopped(call: Call, stream_sid: str, reason: str) -> None:
    if call.memo.stream_sid == stream_sid and not call.waiting:
        call.end(reason)


async def _closed(socket: web.WebSocketResponse) -> None:
    await socket.close()


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")
