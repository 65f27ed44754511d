"""Calls: what they are doing, changes of it, and new ones that are placed.

https://www.twilio.com/docs/voice/api/call-resource
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from bridge.local.twilio.account import Account
from bridge.local.twilio.call import Direction, SimulatedCall
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.rest.applications import INVALID_APPLICATION, Applications
from bridge.local.twilio.rest.date import rfc_2822
from bridge.local.twilio.rest.form import (
    Fields,
    integer,
    matching,
    method,
    one_of,
    posted,
    read,
    sid,
    text,
    url,
)
from bridge.local.twilio.rest.numbers import Numbers
from bridge.local.twilio.rest.paging import FIELDS, page
from bridge.local.twilio.rest.refusal import Refused, not_found
from bridge.local.twilio.script import Script
from bridge.local.twilio.twiml import Track

NOT_IN_PROGRESS: Final = 21220
INVALID_URL: Final = 21205
INVALID_TO: Final = 21211
INVALID_FROM: Final = 21212
NOT_OURS: Final = 21210
TWIML_TOO_LONG: Final = 32018
TWIML_CHARACTERS: Final = 4000

OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
STATUSES: Final = ("queued", "ringing", "in-progress", *sorted(OVER))

_E164: Final = r"\+[1-9][0-9]{6,14}"
_PARTY: Final = rf"{_E164}|sips?:[^\s@]+@\S+|client:\S+"

LIST: Final[Fields] = {
    "To": text(100),
    "From": text(100),
    "ParentCallSid": sid("CA"),
    "Status": one_of(*STATUSES),
    **FIELDS,
}

_DOCUMENT: Final[Fields] = {
    "Url": url(INVALID_URL),
    "Method": method(),
    "FallbackUrl": url(INVALID_URL),
    "FallbackMethod": method(),
    "StatusCallback": url(21609),
    "StatusCallbackMethod": method(),
    "Twiml": text(TWIML_CHARACTERS, TWIML_TOO_LONG),
    "TimeLimit": integer(1, 86_400),
}

UPDATE: Final[Fields] = {**_DOCUMENT, "Status": one_of("completed", "canceled")}

CREATE: Final[Fields] = {
    **_DOCUMENT,
    "To": matching(_PARTY, INVALID_TO),
    "From": matching(_E164, INVALID_FROM),
    "ApplicationSid": sid("AP", INVALID_APPLICATION),
    "StatusCallbackEvent": one_of("initiated", "ringing", "answered", "completed", many=True),
    "Timeout": integer(1, 600),
}
"""Of what Twilio takes this is what is simulated; recordings and answering machines are not."""


@dataclass(frozen=True, slots=True)
class Line:
    """What calls find that are placed through the API, or come in on a number of the account."""

    target: str
    """Where the bridge really is, such as http://127.0.0.1:8080."""
    public_url: str | None
    audio: Mapping[Track, bytes]
    """8 kHz mu-law of each track."""
    script: Script = field(default_factory=Script)


class Calls:
    """Those of one account. The API runs the calls that it places; others are added, and run by who made them."""

    def __init__(self, account: Account, numbers: Numbers, applications: Applications) -> None:
        self._account = account
        self._numbers = numbers
        self._applications = applications
        self._path = f"/2010-04-01/Accounts/{account.sid}/Calls"
        self._placed: set[asyncio.Task[object]] = set()
        self.known: dict[str, SimulatedCall] = {}
        self.line: Line | None = None
        """What `incoming` and placed calls find; without one there are none."""

    def add(self, call: SimulatedCall) -> SimulatedCall:
        """Have a call known. Its caller stays on the line: a stream may be started at any time."""
        call.stay()
        self.known[call.report.call_sid] = call
        return call

    def incoming(self, phone_number: str, caller: str = "+15550100") -> SimulatedCall:
        """Somebody calls one of the account's numbers: a call that is to be run."""
        return self._call(self._numbers.handler(phone_number), caller, phone_number, "inbound")

    async def close(self) -> None:
        """End the calls that were placed."""
        for task in self._placed:
            task.cancel()
        await asyncio.gather(*self._placed, return_exceptions=True)

    def find(self, request: web.Request) -> SimulatedCall:
        """The call that a request is about."""
        found = self.known.get(request.match_info["call"])
        if found is None:
            raise not_found(request.path)
        return found

    def routes(self, base: str) -> list[web.RouteDef]:
        """Of an account's API at `base`."""
        one = base + "/Calls/{call}.json"
        return [
            web.get(f"{base}/Calls.json", self._list),
            web.post(f"{base}/Calls.json", self._create),
            web.get(one, self._fetch),
            web.post(one, self._update),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        asked = read(request.query, LIST)
        shown = [self._as_json(call) for call in reversed(self.known.values())]  # the newest first
        wanted = {"to": "To", "from": "From", "parent_call_sid": "ParentCallSid", "status": "Status"}
        shown = [
            call
            for call in shown
            if all(asked.get(name, call[shown_as]) == call[shown_as] for shown_as, name in wanted.items())
        ]
        return web.json_response(page(request.path, "calls", shown, asked))

    async def _fetch(self, request: web.Request) -> web.Response:
        read(request.query, {})
        return web.json_response(self._as_json(self.find(request)))

    async def _create(self, request: web.Request) -> web.Response:
        asked = await posted(request, CREATE)
        caller = asked.get("From", "")
        if not asked.get("To"):
            raise Refused("No 'To' number is specified", 21201)
        if caller not in {each["phone_number"] for each in self._numbers.known.values()}:
            raise Refused("The source phone number provided is not yet verified for your account.", NOT_OURS)
        handler = _handler(asked)
        if application := asked.get("ApplicationSid"):
            handler = self._applications.handler(application)
        if not (handler.url or handler.twiml):
            raise Refused("Url parameter is required.", INVALID_URL)
        call = self._call(handler, caller, asked["To"], "outbound-api")
        placed = asyncio.create_task(call.run())
        self._placed.add(placed)
        placed.add_done_callback(self._placed.discard)
        return web.json_response(self._as_json(call), status=HTTPStatus.CREATED)

    async def _update(self, request: web.Request) -> web.Response:
        call, asked = self.find(request), await posted(request, UPDATE)
        status, to = asked.get("Status"), _handler(asked)
        if status == "canceled" and call.status not in {"queued", "ringing"}:
            raise Refused("Call is not queued or ringing. Cannot cancel.", NOT_IN_PROGRESS)
        if (status or to.url or to.twiml) and call.status in OVER:
            raise Refused("Call is not in-progress. Cannot redirect.", NOT_IN_PROGRESS)
        if status:
            call.hang_up(status)
        elif to.url or to.twiml:
            if call.status != "in-progress":
                raise Refused("Call is not in-progress. Cannot redirect.", NOT_IN_PROGRESS)
            call.redirect(to)
        return web.json_response(self._as_json(call))

    def _call(self, handler: Handler, caller: str, called: str, direction: Direction) -> SimulatedCall:
        if self.line is None:
            raise Refused("No line was set for calls: nobody would speak, and the bridge cannot be found.")
        call = SimulatedCall(
            self._account,
            self.line.target,
            self.line.audio,
            self.line.script,
            public_url=self.line.public_url,
            caller=caller,
            called=called,
            handler=handler,
            direction=direction,
        )
        return self.add(call)

    def _as_json(self, call: SimulatedCall) -> dict[str, Any]:
        ended, answered, sid = call.ended_at, call.answered_at, call.report.call_sid
        numbers = self._numbers.known.values()
        ours = call.called if call.direction == "inbound" else call.caller
        here = next((each["sid"] for each in numbers if each["phone_number"] == ours), None)
        duration = None if ended is None else str(int(ended - (answered or ended)))
        return {
            "sid": sid,
            "account_sid": self._account.sid,
            "status": call.status,
            "direction": call.direction,
            "from": call.caller,
            "from_formatted": call.caller,
            "to": call.called,
            "to_formatted": call.called,
            "phone_number_sid": here,
            "date_created": rfc_2822(call.made_at),
            "date_updated": rfc_2822(ended or answered or call.made_at),
            "start_time": rfc_2822(answered),
            "end_time": rfc_2822(ended),
            "duration": duration,
            "parent_call_sid": None,
            "answered_by": None,
            "api_version": "2010-04-01",
            "caller_name": None,
            "forwarded_from": None,
            "group_sid": None,
            "price": None,
            "price_unit": "USD",
            "queue_time": "0",
            "stir_verstat": None,
            "trunk_sid": None,
            "uri": f"{self._path}/{sid}.json",
            "subresource_uris": {"streams": f"{self._path}/{sid}/Streams.json"},
        }


def _handler(asked: Mapping[str, str]) -> Handler:
    """What the parameters say of a call's documents."""
    return Handler(
        asked.get("Url", ""),
        asked.get("Method", "POST"),
        asked.get("FallbackUrl", ""),
        asked.get("FallbackMethod", "POST"),
        twiml=asked.get("Twiml", ""),
        status_callback=asked.get("StatusCallback", ""),
        status_callback_method=asked.get("StatusCallbackMethod", "POST"),
        events=tuple(asked.get("StatusCallbackEvent", "completed").split()),
    )
