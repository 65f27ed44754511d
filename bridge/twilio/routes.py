"""What Twilio asks of us over HTTP: TwiML for a call, and word of what became of its stream."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from aiohttp import web
from multidict import MultiDict

from bridge import log, metrics
from bridge.call.call import Call
from bridge.call.calls import Calls
from bridge.call.memo import our_number
from bridge.call.recovery import SILENT_S
from bridge.config import Config, NumberSettings
from bridge.numbers.call_flows import CallFlows
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.ownership import Known, Ownership
from bridge.twilio import twiml
from bridge.twilio.addresses import TIMES, Addresses
from bridge.twilio.admission import Place
from bridge.twilio.console import Console
from bridge.twilio.dial import call_flow, query
from bridge.twilio.gate import Gate
from bridge.twilio.live import LiveCalls
from bridge.twilio.media import CALL_SID
from bridge.twilio.stream import Inherit, Streams
from bridge.workers.company import BEGUN, DETACH, STOPPED, STREAMED, Company

STATUS_GRACE_S: Final = 3.0
"""`stream-stopped` comes on a connection of its own and may overtake the last audio by this much."""

SENTENCES: Final[Mapping[str, str]] = {
    "call_sid": "the request has no valid CallSid",
    "account": "the call belongs to another account",
    "ended": "the call has been transcribed to its end",
    "draining": "the bridge is stopping",
    "full_calls": "as many calls are transcribed as server.max_calls, or this machine, allows",
    "full_cpu": "the machine is too busy for another call",
    "full_whisper": "the call's Whisper endpoint has all the sockets that whisper.max_connections allows",
}
"""Why a call goes on without a stream."""

RESUMES: Final = 5
"""How often a call whose stream is over is streamed again: it may be closed each time for a reason of its own."""

KNOWN_S: Final = 2.0
"""How long the outbox may take to say what it knows of a call: the caller hears nothing meanwhile."""

_logger = log.get(__name__)


class TwilioRoutes:
    """The handlers under `/twilio/`. `unready` says why no new call can be taken, or nothing.

    Of calls that this process does not have: `known` is what the outbox says, `inherit` makes one ours as soon as
    it can, and `take` one that is nobody's.
    """

    def __init__(
        self,
        config: Config,
        *,
        public_url: str,
        calls: Calls,
        call_flows: CallFlows,
        gate: Gate,
        known: Callable[[str], Awaitable[Known | None]],
        inherit: Inherit,
        take: Callable[[Known], None],
        unready: Callable[[], str],
        company: Company,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._company = company
        self._config = config
        self._public_url = public_url
        self._gate = gate
        self._known = known
        self._take = take
        self._calls = calls
        self._call_flows = call_flows
        self._unready = unready
        self._wall = wall
        self._monotonic = monotonic
        self._addresses = Addresses.of(public_url)
        self.streams = Streams(
            gate,
            calls,
            self._settings,
            config=config,
            inherit=inherit,
            unready=unready,
            wall=wall,
            monotonic=monotonic,
        )
        self.streams.admission.elsewhere = lambda call_sid: company.tell(BEGUN, call_sid)
        company.answer({BEGUN: self._begun, STOPPED: self._stopped})

    def routes(self) -> list[web.RouteDef]:
        """What to add to the application."""
        return [
            web.post("/twilio/voice", self.voice),
            web.get("/twilio/media", self.streams.media),
            web.post("/twilio/stream-status", self.stream_status),
            web.post("/twilio/resume", self.resume),
        ]

    def console(self, live: LiveCalls, outbox: Ownership) -> Console:
        """What the operator does with calls by hand."""
        console = Console(
            self._calls,
            live,
            outbox,
            account_sid=self._config.twilio.account_sid,
            tokens=functools.partial(self._gate.issue, by_hand=True),
            reserve=self._reserve_by_hand,
            settings=self._settings,
            unready=lambda: self._unready() or SENTENCES.get(self.streams.full(), ""),
            others=self._company,
        )
        self._company.answer({STREAMED: console.has_stream, DETACH: console.detached_here})
        return console

    async def voice(self, request: web.Request) -> web.Response:
        """Answer a new call: the stream and the call flow; without the stream when we cannot take the call."""
        form = await self._gate.form(request)
        if why := self._reason_against(form) or self.reserve(form, again=False):
            metrics.VOICE_ANSWERS.labels("without_stream").inc()
            metrics.NOT_STREAMED.labels(why).inc()
            reason = SENTENCES.get(why, why)
            _logger.warning("call_not_streamed", call_sid=form.get("CallSid", "")[:64], reason=reason)
            return await self._call_flow(request, form)
        return await self._with_stream(request, form, 1)

    async def resume(self, request: web.Request) -> web.Response:
        """The stream of a `<Connect>` is over, or a pause of ours ran out: the call goes on with its call flow.

        If its stream was lost, or the process that had it, it begins again: some times at most.
        """
        form = await self._gate.form(request)
        counted = request.query.get(TIMES, "")
        times = int(counted) if len(counted) == 1 and counted.isdecimal() else 0
        if times <= RESUMES and not self._reason_against(form) and await self._is_lost(form, over=times > 0):
            self.reserve(form, again=True)
            return await self._with_stream(request, form, times + 1, again=True)
        metrics.VOICE_ANSWERS.labels("resume").inc()
        return await self._call_flow(request, form)

    async def stream_status(self, request: web.Request) -> web.Response:
        """Twilio's word on a stream. If it stopped, its call may be over, should its socket never say so.

        A call that nobody has is taken over at once.
        """
        form = await self._gate.form(request)
        event = form.get("StreamEvent", "")
        if event in {"stream-stopped", "stream-error"}:
            call_sid = form.get("CallSid", "")
            if event == "stream-error":
                error = form.get("StreamError", "")[:200]
                _logger.warning("stream_error", call_sid=call_sid[:64], error=error)
            stopped = call_sid, form.get("StreamSid", ""), event.replace("-", "_")
            if self._calls.get(call_sid):
                await self._stopped(stopped)
            elif not self._reason_against(form):
                self._company.tell(STOPPED, stopped)
                known = await self._elsewhere(call_sid)
                if (
                    known is not None and known.silent_s >= SILENT_S and not known.heir
                ):  # an heir takes it itself
                    self._take(known)
        return web.Response(status=204)

    async def _stopped(self, stopped: Sequence[str]) -> None:
        """A stream of ours is over, of which the socket may not say so."""
        call_sid, stream_sid, reason = stopped
        if call := self._calls.get(call_sid):
            asyncio.get_running_loop().call_later(STATUS_GRACE_S, _cut, call, stream_sid, reason)

    async def _begun(self, call_sid: str) -> None:
        """Another worker has the stream of a call that may have its place here."""
        self.streams.admission.release(call_sid)

    async def _is_lost(self, form: MultiDict[str], *, over: bool) -> bool:
        """Whether a call goes on that has no stream: that its stream is `over` Twilio says, or we must know."""
        call = self._calls.get(form["CallSid"])
        if call is not None and not call.leaving:
            return call.waiting or (over and not call.ending)
        known = await self._elsewhere(form["CallSid"])
        return known is not None and (over or known.silent_s >= SILENT_S)

    async def _elsewhere(self, call_sid: str) -> Known | None:
        """A call that goes on, and is not ours; None if there is none, or the outbox does not say."""
        try:
            async with asyncio.timeout(KNOWN_S):
                known = await self._known(call_sid)
        except (OutboxDown, TimeoutError):
            return None
        return None if known is None or known.ended or known.erased else known

    def reserve(self, form: Mapping[str, str], *, again: bool) -> str:
        """Keep a place for the call that a form is about, which is told to stream now; or the reason why not.

        See `Admission.reserve`, also for `again`.
        """
        parties = form.get("From", ""), form.get("To", ""), form.get("Direction", "")
        place = Place.of(form.get("CallSid", ""), self._settings(*parties))
        return self.streams.admission.reserve(place, self._monotonic(), again=again)

    def _reason_against(self, form: MultiDict[str]) -> str:
        """Why this call cannot be streamed, in a word of `SENTENCES`; empty if it can."""
        call_sid = form.get("CallSid", "")
        if not CALL_SID.fullmatch(call_sid):
            return "call_sid"
        if not self._gate.is_ours(form.get("AccountSid", "")):
            return "account"
        if self._calls.has_ended(call_sid):
            return "ended"
        return self._unready()

    def _reserve_by_hand(self, form: Mapping[str, str], *, again: bool) -> str:
        """As `reserve`, with a sentence for the operator."""
        why = self.reserve(form, again=again)
        return SENTENCES.get(why, why)

    async def _with_stream(
        self, request: web.Request, form: MultiDict[str], times: int, *, again: bool = False
    ) -> web.Response:
        """The TwiML for the stream number `times` of a call."""
        metrics.VOICE_ANSWERS.labels("stream").inc()
        settings, addresses = await self._flow(request, form)
        if settings.twilio.mode == "connect":
            addresses = addresses.resumed(times)
        return _xml(twiml.with_stream(settings, addresses, self._gate.issue(form, self._wall(), again=again)))

    async def _call_flow(self, request: web.Request, form: MultiDict[str]) -> web.Response:
        return _xml(twiml.without_stream(*await self._flow(request, form)))

    async def _flow(self, request: web.Request, form: MultiDict[str]) -> tuple[NumberSettings, Addresses]:
        """The settings of our number in a call, and where Twilio asks on; a dialled call may have its own call flow."""
        settings = self._settings(form.get("From", ""), form.get("To", ""), form.get("Direction", ""))
        if then := call_flow(request.query, public_url=self._public_url):
            return replace(settings, then=then), self._addresses.going_on(query(then.url))
        return await self._call_flows.applied_to(settings), self._addresses

    def _settings(self, from_: str, to: str, direction: str) -> NumberSettings:
        """The settings of our number in this call: the one called, or the one that calls."""
        return self._config.for_number(our_number(from_, to, direction))


def _cut(call: Call, stream_sid: str, reason: str) -> None:
    if call.memo.stream_sid == stream_sid:
        call.cut(reason)


def _xml(text: str) -> web.Response:
    return web.Response(text=text, content_type="application/xml")
