"""`/api/calls`: the calls of this bridge, what is known of a call, and what is done with one."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web

from bridge import events
from bridge.api import filters
from bridge.api.body import json_object
from bridge.api.deliveries import LARGEST_PAGE, within
from bridge.call.call import Call
from bridge.call.calls import Calls
from bridge.call.memo import Memo
from bridge.errors import UsageError
from bridge.outbox.outbox import Outbox, Selection
from bridge.outbox.ownership import Known
from bridge.twilio.console import SILENT_S, Console
from bridge.twilio.dial import Dial
from bridge.workers.company import CALL, CALLS, Company


class CallRoutes:
    """The handlers. `public_url` is what Twilio calls this bridge. Calls of other workers are among its own."""

    def __init__(
        self, outbox: Outbox, calls: Calls, console: Console, public_url: str, company: Company
    ) -> None:
        self._outbox = outbox
        self._calls = calls
        self._console = console
        self._public_url = public_url
        self._company = company
        company.answer({CALLS: self._every, CALL: self._one})

    def routes(self) -> list[web.RouteDef]:
        """What to add to the API."""
        return [
            web.get("/calls", self.list),
            web.post("/calls", self.dial),
            web.get("/calls/{call_sid}", self.show),
            web.post("/calls/{call_sid}/attach", self.attach),
            web.post("/calls/{call_sid}/detach", self.detach),
            web.get("/calls/{call_sid}/transcript", self.transcript),
        ]

    async def list(self, _: web.Request) -> web.Response:
        """The calls that this bridge has, the oldest first. What is over is not kept here, but in the outbox."""
        others = await self._company.ask(CALLS)
        calls = [*await self._every(), *itertools.chain.from_iterable(others)]
        return web.json_response({"calls": sorted(calls, key=_since) if others else calls})

    async def show(self, request: web.Request) -> web.Response:
        """One call, wherever it is or was: how much was said, and how often audio is missing."""
        call_sid = _call_sid(request)
        if (own := await self._one(call_sid)) is not None:
            told = own
        elif others := await self._company.ask(CALL, call_sid):
            told = others[0]
        elif (known := await within(self._outbox.known(call_sid))) is not None:
            told = _known(known)
        else:
            raise web.HTTPNotFound(text=f"Nothing is known of {call_sid}.")
        lines = await within(self._outbox.transcript(call_sid))
        gaps = await self._stored(call_sid, "transcript.gap")
        return web.json_response({"call": {**told, "finals": len(lines), "gaps": gaps}})

    async def attach(self, request: web.Request) -> web.Response:
        """Have a call in progress transcribed; one that is, stays as it is."""
        call_sid = _call_sid(request)
        attached = await self._console.attach(call_sid)
        return web.json_response(
            {
                "call_sid": call_sid,
                "stream_sid": attached.stream_sid,
                "already": attached.already,
                "arrived": attached.arrived,
            }
        )

    async def detach(self, request: web.Request) -> web.Response:
        """Transcribe a call no more. A second time is no error."""
        call_sid = _call_sid(request)
        return web.json_response({"call_sid": call_sid, "detached": await self._console.detach(call_sid)})

    async def dial(self, request: web.Request) -> web.Response:
        """Place a call that is transcribed from its first second."""
        body = await json_object(request)
        wanted = {name: body.pop(name, "") for name in ("from", "to", "then")}
        if body or not all(isinstance(value, str) for value in wanted.values()):
            raise UsageError(
                'The body must be {"from": "+1...", "to": "+1...", "then": "https://..."}, texts.'
            )
        dial = Dial.of(wanted["from"], wanted["to"], wanted["then"], public_url=self._public_url)
        return web.json_response({"call_sid": await self._console.dial(dial)})

    async def transcript(self, request: web.Request) -> web.Response:
        """What was said so far, both tracks, by when it began; empty for a call of which no text is kept."""
        call_sid = _call_sid(request)
        lines = await within(self._outbox.transcript(call_sid))
        return web.json_response(
            {
                "call_sid": call_sid,
                "transcript": [
                    {
                        "track": line.track,
                        "text": line.text,
                        "start_ms": line.start_ms,
                        "end_ms": line.end_ms,
                    }
                    for line in sorted(lines, key=lambda line: line.start_ms)
                ],
            }
        )

    async def _every(self, _: Any = None) -> Sequence[Mapping[str, Any]]:
        """The calls of this process."""
        return [_live(call) for call in self._calls]

    async def _one(self, call_sid: str) -> Mapping[str, Any] | None:
        """A call of this process."""
        call = self._calls.get(call_sid)
        return None if call is None else _live(call)

    async def _stored(self, call_sid: str, type_: str) -> int:
        """How many events of a type the outbox has of a call."""
        counted, before = 0, None
        while True:
            page = await within(
                self._outbox.records(Selection(call_sid=call_sid), LARGEST_PAGE, before=before)
            )
            counted += sum(record.type == type_ for record in page)
            if len(page) < LARGEST_PAGE:
                return counted
            before = page[-1].serial


def _call_sid(request: web.Request) -> str:
    return filters.call_sid(request.match_info["call_sid"])


def _since(call: Mapping[str, Any]) -> str:
    return call["since"] or ""


def _live(call: Call) -> Mapping[str, Any]:
    state = "ending" if call.ending else "waiting" if call.waiting else "live"
    return {**_told(call.about.call_sid, call.memo, state), "behind_s": round(call.behind_s, 3)}


def _known(known: Known) -> Mapping[str, Any]:
    """A call that this process does not have."""
    elsewhere = bool(known.node) and known.silent_s < SILENT_S
    state = "erased" if known.erased else "ended" if known.ended else "elsewhere" if elsewhere else "waiting"
    return {**_told(known.call_sid, Memo.decode(known.meta), state), "behind_s": None}


def _told(call_sid: str, memo: Memo | None, state: str) -> Mapping[str, Any]:
    """A call as JSON. What is not kept of it any more is null."""
    about = memo and memo.about
    began_at = memo.began_at if memo else None
    return {
        "call_sid": call_sid,
        "state": state,
        "from": about and about.from_,
        "to": about and about.to,
        "direction": about and about.direction,
        "stream_sid": memo and memo.stream_sid,
        "tracks": memo and memo.tracks,
        "mode": memo and memo.mode,
        "since": None if began_at is None else events.timestamp(began_at),
    }
