"""Streams of calls in progress, which listen only.

https://www.twilio.com/docs/voice/api/stream-resource
"""

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.report import StreamReport
from bridge.local.twilio.rest.calls import Calls
from bridge.local.twilio.rest.date import rfc_2822
from bridge.local.twilio.rest.form import Fields, method, one_of, posted, text, url
from bridge.local.twilio.rest.refusal import Refused, not_found
from bridge.local.twilio.twiml import PARAMETER_LIMIT, TRACKS, Stream, TwimlError, media_url
from bridge.local.twilio.webhook import CallFailedError

PARAMETERS: Final = range(1, 100)
"""`Parameter1` to `Parameter99`."""

INVALID_TRACK: Final = 31941
INVALID_URL: Final = 31922

CREATE: Final[Fields] = {
    "Url": text(4000),
    "Name": text(64),
    "Track": one_of(*TRACKS, code=INVALID_TRACK),
    "StatusCallback": url(21609),
    "StatusCallbackMethod": method(),
    **{
        f"Parameter{number}.{part}": text(PARAMETER_LIMIT)
        for number in PARAMETERS
        for part in ("Name", "Value")
    },
}

UPDATE: Final[Fields] = {"Status": one_of("stopped")}


class Streams:
    """Those of the calls that are known."""

    def __init__(self, account_sid: str, calls: Calls) -> None:
        self._account_sid = account_sid
        self._calls = calls

    def routes(self, base: str) -> list[web.RouteDef]:
        """Of an account's API at `base`. A stream is not shown: it is only started and stopped."""
        return [
            web.post(base + "/Calls/{call}/Streams.json", self._create),
            web.post(base + "/Calls/{call}/Streams/{stream}.json", self._update),
        ]

    async def _create(self, request: web.Request) -> web.Response:
        call, asked = self._calls.find(request), await posted(request, CREATE)
        try:
            report = call.start_stream(_stream(asked))
        except CallFailedError as failed:
            raise Refused(str(failed), failed.code) from None
        return web.json_response(self._as_json(call, report, "in-progress"), status=HTTPStatus.CREATED)

    async def _update(self, request: web.Request) -> web.Response:
        call, asked = self._calls.find(request), await posted(request, UPDATE)
        if "Status" not in asked:
            raise Refused("Status is required.")
        try:
            report = call.stop_stream(request.match_info["stream"])
        except CallFailedError as failed:
            raise Refused(str(failed), failed.code) from None
        if report is None:
            raise not_found(request.path)
        return web.json_response(self._as_json(call, report, "stopped"))

    def _as_json(self, call: SimulatedCall, report: StreamReport, status: str) -> dict[str, Any]:
        call_sid = call.report.call_sid
        base = f"/2010-04-01/Accounts/{self._account_sid}/Calls/{call_sid}/Streams"
        return {
            "sid": report.stream_sid,
            "account_sid": self._account_sid,
            "call_sid": call_sid,
            "name": report.name or report.stream_sid,
            "status": status,
            "date_updated": rfc_2822(time.time()),
            "uri": f"{base}/{report.stream_sid}.json",
        }


def _stream(asked: Mapping[str, str]) -> Stream:
    try:
        address = media_url(asked.get("Url", ""), "")
    except TwimlError as wrong:
        raise Refused(str(wrong), INVALID_URL) from None
    parameters: dict[str, str] = {}
    for number in PARAMETERS:
        name, value = (asked.get(f"Parameter{number}.{part}", "") for part in ("Name", "Value"))
        if value and not name:
            raise Refused(f"Parameter{number} has a value and no name.")
        if len(name) + len(value) >= PARAMETER_LIMIT:
            raise Refused(f"Parameter{number} has {PARAMETER_LIMIT} characters and more.")
        if name:
            parameters[name] = value
    return Stream(
        url=address,
        bidirectional=False,
        tracks=TRACKS[asked.get("Track", "inbound_track")],
        name=asked.get("Name", ""),
        parameters=parameters,
        status_callback=asked.get("StatusCallback") or None,
        status_callback_method=asked.get("StatusCallbackMethod", "POST"),
    )
