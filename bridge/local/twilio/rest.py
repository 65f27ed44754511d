"""The REST API of the simulated Twilio, for the calls that it makes: what they are doing, and changes of it."""

import base64
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final, Self, cast

from aiohttp import web

from bridge.local.twilio.account import Account
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.twiml import TRACKS, Stream
from bridge.local.twilio.webhook import CallFailedError

PARAMETERS: Final = 99
"""The API takes `Parameter1` to `Parameter99`."""


class RestApi:
    """Answers at `url` while it is open: `async with RestApi(account) as api`. Add calls when they are made."""

    def __init__(self, account: Account, calls: Iterable[SimulatedCall] = (), port: int = 0) -> None:
        self.calls = {call.report.call_sid: call for call in calls}
        self.refuse: int | None = None
        """An HTTP status that everything is answered with instead."""
        self.asked: list[str] = []
        """Method and path of each request."""
        self._account = account
        self._port = port
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """What stands for `https://api.twilio.com`."""
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._admitted])
        base = "/2010-04-01/Accounts/{account}/Calls/{call}"
        app.add_routes(
            [
                web.get(base + ".json", self._fetch),
                web.post(base + ".json", self._update),
                web.post(base + "/Streams.json", self._stream),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def add(self, call: SimulatedCall) -> SimulatedCall:
        """Have a call known."""
        self.calls[call.report.call_sid] = call
        return call

    @web.middleware
    async def _admitted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        credentials = f"{self._account.sid}:{self._account.auth_token}".encode()
        if self.refuse is not None:
            return _error(self.refuse, 20000, "refused")
        if request.headers.get("Authorization") != f"Basic {base64.b64encode(credentials).decode()}":
            return _error(401, 20003, "Authenticate")
        if request.match_info.get("account") != self._account.sid or (
            request.match_info.get("call") not in self.calls
        ):
            return _error(404, 20404, "The requested resource was not found")
        return cast("web.StreamResponse", await handler(request))

    async def _fetch(self, request: web.Request) -> web.Response:
        return web.json_response(self._as_json(self._call(request)))

    async def _update(self, request: web.Request) -> web.Response:
        call, form = self._call(request), await request.post()
        if call.status == "completed":
            return _error(400, 21220, "Call is not in-progress. Cannot redirect.")
        if form.get("Status") == "completed":
            call.hang_up()
        if url := _text(form, "Url"):
            call.redirect(url, _text(form, "Method") or "POST")
        return web.json_response(self._as_json(call))

    async def _stream(self, request: web.Request) -> web.Response:
        call, form = self._call(request), await request.post()
        track = _text(form, "Track") or "inbound_track"
        url = _text(form, "Url")
        if not url.startswith("wss://") or track not in TRACKS:
            return _error(400, 21609, "Invalid Url or Track")
        parameters = {
            name: _text(form, f"Parameter{number}.Value")
            for number in range(1, PARAMETERS + 1)
            if (name := _text(form, f"Parameter{number}.Name"))
        }
        stream = Stream(
            url=url,
            bidirectional=False,
            tracks=TRACKS[track],
            name=_text(form, "Name"),
            parameters=parameters,
            status_callback=_text(form, "StatusCallback") or None,
        )
        try:
            report = call.start_stream(stream)
        except CallFailedError as failed:
            return _error(400, 21220, str(failed))
        answer = {
            "sid": report.stream_sid,
            "account_sid": self._account.sid,
            "call_sid": call.report.call_sid,
            "name": stream.name,
            "status": "in-progress",
            "date_updated": _date(time.time()),
            "uri": f"{request.path.removesuffix('.json')}/{report.stream_sid}.json",
        }
        return web.json_response(answer, status=201)

    def _call(self, request: web.Request) -> SimulatedCall:
        return self.calls[request.match_info["call"]]

    def _as_json(self, call: SimulatedCall) -> dict[str, object]:
        ended = call.ended_at
        return {
            "sid": call.report.call_sid,
            "account_sid": self._account.sid,
            "status": call.status,
            "direction": "inbound",
            "end_time": None if ended is None else _date(ended),
            "uri": f"/2010-04-01/Accounts/{self._account.sid}/Calls/{call.report.call_sid}.json",
        }


def _text(form: Mapping[str, object], name: str) -> str:
    value = form.get(name, "")
    return value if isinstance(value, str) else ""


def _error(status: int, code: int, message: str) -> web.Response:
    body = {"code": code, "message": message, "status": status, "more_info": ""}
    return web.json_response(body, status=status)


def _date(at: float) -> str:
    """As the API writes times: RFC 2822, whole seconds."""
    return format_datetime(datetime.fromtimestamp(int(at), UTC))
