"""The socket of a stream: admitted, read from `start` to `stop`, and closed."""

import asyncio
import functools
import time
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import WSCloseCode, web

from bridge import log, metrics
from bridge.call.call import Call
from bridge.call.calls import Calls
from bridge.call.memo import About
from bridge.config import Config, NumberSettings
from bridge.twilio.admission import Admission, Place
from bridge.twilio.feed import START_S, Feed
from bridge.twilio.gate import Gate
from bridge.twilio.media import Refused, Start
from bridge.twilio.socket import Socket, Unruly
from bridge.twilio.sources import UNSIGNED, Sources
from bridge.twilio.stream_token import Ticket, TokenRefused

TAKEN_S: Final = 30.0
"""How long a stream of a call that another process has, or had, waits until the call is ours: until the other one is
taken for dead, or has finished what it heard."""

SAMPLE_S: Final = 1.0
"""How often it is measured how busy this process is, and which streams are silent."""

SILENT_S: Final = 10.0
"""A stream that has brought nothing for so long is suspect: its call may be on hold, or its socket dead."""

_logger = log.get(__name__)


class Inherit(Protocol):
    """Makes a call ours, if another process had it; see `Recovery.inherit`."""

    async def __call__(self, about: About, *, again: bool) -> bool:
        """False if it has ended."""


class Streams:
    """The sockets at `/twilio/media`. `unready` says why no stream can be taken, or nothing.

    `settings` gives those of a call between two parties, by who calls, who is called, and the direction. `inherit`
    makes a call ours that was streamed before, as soon as it can; see `Recovery`.
    """

    def __init__(
        self,
        gate: Gate,
        calls: Calls,
        settings: Callable[[str, str, str], NumberSettings],
        *,
        config: Config,
        inherit: Inherit,
        unready: Callable[[], str],
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.admission = Admission(
            _Live(calls), max_calls=config.server.max_calls, max_connections=config.whisper.max_connections
        )
        self.changed: Callable[[], None] = lambda: None
        """Is called when one more has been let in."""
        self._gate = gate
        self._calls = calls
        self._settings = settings
        self._inherit = inherit
        self._unready = unready
        self._wall = wall
        self._monotonic = monotonic
        self._speed = config.twilio.max_speed
        self._usual = Place.of("", config.for_number(""))
        self._sources: Sources[Socket] = Sources(config.server.trusted_proxies)
        self._closing: set[asyncio.Task[None]] = set()
        self._sockets: set[Socket] = set()

    def __len__(self) -> int:
        """Sockets that are open."""
        return len(self._sockets)

    def full(self, strangers: int = 0) -> str:
        """Why a call of no particular number could not be streamed now, in a word; nothing if it could."""
        return self.admission.full(self._usual, self._monotonic(), strangers=strangers)

    @property
    def fullness(self) -> int:
        """Whether there is a place for a call of no particular number; see `Admission.fullness`."""
        return self.admission.fullness(self._usual, self._monotonic())

    async def run(self) -> None:
        """Measure how busy this process is, for ever."""
        while True:
            now = self._monotonic()
            self.admission.sample(now, time.process_time())
            metrics.STREAMS_SILENT.set(sum(_is_silent(call) for call in self._calls))
            await asyncio.sleep(SAMPLE_S)

    async def close(self) -> None:
        """Close the sockets that are still open; Twilio goes on with the calls."""
        closing = [socket.close(WSCloseCode.GOING_AWAY, "the bridge is stopping") for socket in self._sockets]
        await asyncio.gather(*closing, *self._closing, return_exceptions=True)

    async def media(self, request: web.Request) -> web.StreamResponse:
        """The stream's socket, from `start` to `stop`. Refused before the upgrade if Twilio did not sign it."""
        address = self._allowed(request)
        socket = Socket(self._speed, self._monotonic)
        self._sources.wait(socket, address)
        self._sockets.add(socket)
        try:
            response = await socket.open(request)
            await self._carry(socket)
        finally:
            self._sources.started(socket)
            self._sockets.discard(socket)
        return response

    def _allowed(self, request: web.Request) -> str:
        """Where an upgrade comes from that may be answered. Raises 403, 429 or 503."""
        now = self._monotonic()
        address = self._sources.address(request.remote or "", request.headers)
        try:
            self._gate.check_upgrade(request)
        except web.HTTPForbidden:
            if not self._sources.unsigned(address, now):
                raise
            metrics.REFUSALS.labels("upgrade_rate").inc()
            sentence = f"more than {UNSIGNED} upgrades without Twilio's signature in a second"
            raise web.HTTPTooManyRequests(text=sentence, headers={"Retry-After": "1"}) from None
        awaited = self._gate.awaited(self._wall())
        reason = "unready" if self._unready() else self._sources.full(address, awaited)
        if awaited and (silent := self._sources.give_way(address, reason)):  # a call speaks at once
            metrics.REFUSALS.labels(reason).inc()
            self._hang_up(silent, WSCloseCode.POLICY_VIOLATION)
            reason = ""
        strangers = self._sources.pending - awaited
        if not reason and strangers >= 0:  # else this one may be one that was let in
            reason = self.full(strangers)
        if not reason:
            return address
        metrics.REFUSALS.labels(reason).inc()
        refusal = web.HTTPTooManyRequests if reason == "pending_address" else web.HTTPServiceUnavailable
        raise refusal(text=reason, headers={"Retry-After": "5"})

    async def _carry(self, socket: Socket) -> None:
        """Read the socket until the stream is over, and close it."""
        feed = Feed(socket, functools.partial(self._begin, socket), self._monotonic)
        try:
            await feed.run()
        except TimeoutError:
            feed.refuse(Refused("no_start", f"no start message came within {START_S:.0f} s"))
        except Unruly as unruly:
            feed.refuse(unruly.refused)
        finally:
            feed.end()
        if feed.refused is None:
            await socket.close()
        else:
            await socket.close(WSCloseCode.POLICY_VIOLATION, feed.refused.sentence)

    async def _begin(self, socket: Socket, start: Start) -> Call | Refused:
        self._sources.started(socket)
        admitted = await self._admit(functools.partial(self._hang_up, socket), start)
        if isinstance(admitted, Call):
            self.admission.begin(start.call_sid)
            self.changed()
        return admitted

    async def _admit(self, hang_up: Callable[[int], None], start: Start) -> Call | Refused:
        """The call of a stream that may be transcribed."""
        at = self._monotonic()
        try:
            ticket = await self._gate.redeem(start, self._wall())
            async with asyncio.timeout(TAKEN_S):
                await self._calls.expected(start.call_sid)
                ended = not await self._inherit(self._about(start, ticket), again=ticket.again)
        except TokenRefused as refused:
            return Refused(f"token_{refused}", f"the stream's token or account is refused: {refused}")
        except TimeoutError:
            return Refused("not_taken", "another process has the call, or the outbox is down")
        if reason := self._unready():
            return Refused("unready", reason)
        if ended or self._calls.has_ended(start.call_sid):
            return Refused("ended", "the call has been transcribed to its end")
        if self._calls.overtaken(start.call_sid, at):
            return Refused("overtaken", "a newer stream of the call has come")
        about, tracks = self._about(start, ticket), start.tracks or ["inbound"]
        settings = self._settings(about.from_, about.to, about.direction)
        if ticket.by_hand:
            settings = settings.listening()
        return self._calls.start(about, settings, start.stream_sid, tracks, hang_up=hang_up, at=at)

    @staticmethod
    def _about(start: Start, ticket: Ticket) -> About:
        parties = (ticket.from_, ticket.to, ticket.direction)
        return About(start.call_sid, start.account_sid, *parties, start.parameters)

    def _hang_up(self, socket: Socket, code: int) -> None:
        """Close a stream's socket without waiting for it."""
        closing = asyncio.create_task(socket.close(code))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


class _Live:
    """The calls that take up a place; one whose audio only waits for its turn takes none yet."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def __len__(self) -> int:
        return sum(not call.recovering for call in self._calls)

    def __contains__(self, call_sid: str) -> bool:
        return self._calls.get(call_sid) is not None

    def sockets(self, endpoint: str) -> int:
        live = (call for call in self._calls if not call.recovering)
        return sum(len(call.memo.tracks) for call in live if call.settings.whisper.endpoint_url == endpoint)


def _is_silent(call: Call) -> bool:
    return not (call.waiting or call.ending) and call.silent_s >= SILENT_S
