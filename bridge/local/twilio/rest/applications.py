"""Applications: call flows that several numbers share.

https://www.twilio.com/docs/usage/api/applications
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from bridge.local.twilio.account import new_sid
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.rest.date import rfc_2822
from bridge.local.twilio.rest.form import Fields, read, text
from bridge.local.twilio.rest.paging import FIELDS, page
from bridge.local.twilio.rest.refusal import Refused, not_found

LIST: Final[Fields] = {"FriendlyName": text(64), **FIELDS}


INVALID_APPLICATION: Final = 21218


class Applications:
    """Those of one account. `add` makes one; the API only shows them."""

    def __init__(self, account_sid: str) -> None:
        self._account_sid = account_sid
        self._path = f"/2010-04-01/Accounts/{account_sid}/Applications"
        self.known: dict[str, dict[str, Any]] = {}
        """Each resource by its SID, as the API shows it."""

    def add(self, friendly_name: str, **fields: Any) -> str:
        """Make one, with fields as the API names them, such as `voice_url`; returns its SID."""
        made, now = new_sid("AP"), rfc_2822(time.time())
        resource: dict[str, Any] = {
            "sid": made,
            "account_sid": self._account_sid,
            "friendly_name": friendly_name,
            "api_version": "2010-04-01",
            "date_created": now,
            "date_updated": now,
            "voice_url": None,
            "voice_method": "POST",
            "voice_fallback_url": None,
            "voice_fallback_method": "POST",
            "voice_caller_id_lookup": False,
            "status_callback": None,
            "status_callback_method": "POST",
            "sms_url": None,
            "sms_method": "POST",
            "sms_fallback_url": None,
            "sms_fallback_method": "POST",
            "sms_status_callback": None,
            "message_status_callback": None,
            "public_application_connect_enabled": False,
            "uri": f"{self._path}/{made}.json",
        }
        unknown = fields.keys() - resource.keys()
        if unknown:
            raise TypeError(f"an application has no {', '.join(sorted(unknown))}")
        self.known[made] = resource | fields
        return made

    def handler(self, sid: str) -> Handler:
        """What answers its calls. Raises Refused for one that the account has not got."""
        if sid not in self.known:
            raise Refused(f"There is no application {sid}.", INVALID_APPLICATION)
        return voice(self.known[sid])

    def routes(self, base: str) -> list[web.RouteDef]:
        """Of an account's API at `base`."""
        return [
            web.get(f"{base}/Applications.json", self._list),
            web.get(base + "/Applications/{sid}.json", self._fetch),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        asked = read(request.query, LIST)
        name = asked.get("FriendlyName")
        shown = [one for one in self.known.values() if name in {None, one["friendly_name"]}]
        return web.json_response(page(request.path, "applications", shown, asked))

    async def _fetch(self, request: web.Request) -> web.Response:
        read(request.query, {})
        found = self.known.get(request.match_info["sid"])
        if found is None:
            raise not_found(request.path)
        return web.json_response(found)


def voice(told: Mapping[str, Any]) -> Handler:
    """The call flow that a number or an application has, as the API shows it."""
    return Handler(
        told["voice_url"] or "",
        told["voice_method"],
        told["voice_fallback_url"] or "",
        told["voice_fallback_method"],
        status_callback=told["status_callback"] or "",
        status_callback_method=told["status_callback_method"],
    )
