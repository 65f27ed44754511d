"""Telephone numbers, and what happens when one is called.

https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource
"""

import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from bridge.local.twilio.account import new_sid
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.rest.applications import INVALID_APPLICATION, Applications, voice
from bridge.local.twilio.rest.date import rfc_2822
from bridge.local.twilio.rest.form import (
    Fields,
    boolean,
    matching,
    method,
    one_of,
    posted,
    read,
    sid,
    text,
    url,
)
from bridge.local.twilio.rest.paging import FIELDS, page
from bridge.local.twilio.rest.refusal import Refused, not_found

INVALID_URL: Final = 21402
FALLBACK_ALONE: Final = 21405
"""https://www.twilio.com/docs/api/errors/21405"""

LIST: Final[Fields] = {
    "PhoneNumber": matching(r"[+*]?[0-9*]+"),
    "FriendlyName": text(64),
    "Beta": boolean(),
    "Origin": one_of("twilio", "hosted"),
    **FIELDS,
}

UPDATE: Final[Fields] = {
    "AccountSid": sid("AC"),
    "ApiVersion": one_of("2010-04-01"),
    "FriendlyName": text(64),
    "SmsApplicationSid": sid("AP", INVALID_APPLICATION),
    "SmsFallbackMethod": method(),
    "SmsFallbackUrl": url(INVALID_URL),
    "SmsMethod": method(),
    "SmsUrl": url(INVALID_URL),
    "StatusCallback": url(21609),
    "StatusCallbackMethod": method(),
    "VoiceApplicationSid": sid("AP", INVALID_APPLICATION),
    "VoiceCallerIdLookup": boolean(),
    "VoiceFallbackMethod": method(),
    "VoiceFallbackUrl": url(INVALID_URL),
    "VoiceMethod": method(),
    "VoiceUrl": url(INVALID_URL),
    "EmergencyStatus": one_of("Active", "Inactive"),
    "EmergencyAddressSid": sid("AD"),
    "TrunkSid": sid("TK"),
    "VoiceReceiveMode": one_of("voice", "fax"),
    "IdentitySid": sid("RI"),
    "AddressSid": sid("AD"),
    "BundleSid": sid("BU"),
}

_EMPTY: Final[Mapping[str, str | None]] = {
    "sms_application_sid": "",
    "sms_fallback_url": "",
    "sms_url": "",
    "status_callback": "",
    "voice_application_sid": "",
    "voice_fallback_url": "",
    "voice_url": "",
    "emergency_address_sid": None,
    "trunk_sid": None,
    "identity_sid": None,
    "address_sid": None,
    "bundle_sid": None,
}
"""How a field is shown that has no value; setting it to the empty string leads back there."""

_INSTEAD: Final = {"voice_application_sid": "trunk_sid", "trunk_sid": "voice_application_sid"}
"""Setting one of them deletes the other."""


class Numbers:
    """Those of one account. `add` buys one."""

    def __init__(self, account_sid: str, applications: Applications) -> None:
        self._account_sid = account_sid
        self._applications = applications
        self._path = f"/2010-04-01/Accounts/{account_sid}/IncomingPhoneNumbers"
        self.known: dict[str, dict[str, Any]] = {}
        """Each resource by its SID, as the API shows it."""

    def add(self, phone_number: str, **fields: Any) -> str:
        """Buy a number, with fields as the API names them, such as `voice_url`; returns its SID."""
        made, now = new_sid("PN"), rfc_2822(time.time())
        resource: dict[str, Any] = {
            "sid": made,
            "account_sid": self._account_sid,
            "phone_number": phone_number,
            "friendly_name": phone_number,
            "api_version": "2010-04-01",
            "beta": False,
            "capabilities": {"voice": True, "sms": True, "mms": False, "fax": False},
            "date_created": now,
            "date_updated": now,
            "origin": "twilio",
            "status": "in-use",
            "type": "local",
            "address_requirements": "none",
            "voice_method": "POST",
            "voice_fallback_method": "POST",
            "voice_caller_id_lookup": False,
            "voice_receive_mode": "voice",
            "sms_method": "POST",
            "sms_fallback_method": "POST",
            "status_callback_method": "POST",
            "emergency_status": "Active",
            "emergency_address_status": "unregistered",
            "uri": f"{self._path}/{made}.json",
            "subresource_uris": {"assigned_add_ons": f"{self._path}/{made}/AssignedAddOns.json"},
            **_EMPTY,
        }
        unknown = fields.keys() - resource.keys()
        if unknown:
            raise TypeError(f"a number has no {', '.join(sorted(unknown))}")
        self.known[made] = resource | fields
        return made

    def of(self, phone_number: str) -> dict[str, Any]:
        """The resource of a number. Raises KeyError if the account has not got it."""
        for resource in self.known.values():
            if resource["phone_number"] == phone_number:
                return resource
        raise KeyError(phone_number)

    def snapshot(self) -> bytes:
        """All of them but for the times of their last changes, to be compared byte for byte."""
        shown = [
            {name: value for name, value in each.items() if name != "date_updated"}
            for each in self.known.values()
        ]
        return json.dumps(shown, indent=1, sort_keys=True).encode()

    def handler(self, phone_number: str) -> Handler:
        """What answers a call of a number now: its application's URLs if it has one, else its own.

        Raises KeyError if the account has not got the number, ValueError for one that a trunk answers.
        """
        number = self.of(phone_number)
        if number["trunk_sid"]:
            raise ValueError("a trunk answers this number, and no trunk is simulated")
        application = number["voice_application_sid"]
        return self._applications.handler(application) if application else voice(number)

    def routes(self, base: str) -> list[web.RouteDef]:
        """Of an account's API at `base`."""
        one = base + "/IncomingPhoneNumbers/{sid}.json"
        return [
            web.get(f"{base}/IncomingPhoneNumbers.json", self._list),
            web.get(one, self._fetch),
            web.post(one, self._update),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        asked = read(request.query, LIST)
        shown = [each for each in self.known.values() if _fits(each, asked)]
        return web.json_response(page(request.path, "incoming_phone_numbers", shown, asked))

    async def _fetch(self, request: web.Request) -> web.Response:
        read(request.query, {})
        return web.json_response(self._found(request))

    async def _update(self, request: web.Request) -> web.Response:
        number = self._found(request)
        asked = await posted(request, UPDATE)
        changes = {_field(name): _value(name, value) for name, value in asked.items()}
        if changes.get("account_sid", self._account_sid) != self._account_sid:
            raise Refused("Numbers are not handed to other accounts here.")
        if application := asked.get("VoiceApplicationSid"):
            self._applications.handler(application)
        changed = number | changes
        for field, other in _INSTEAD.items():
            if changes.get(field):
                changed[other] = _EMPTY[other]
        if changed["voice_fallback_url"] and not changed["voice_url"]:
            raise Refused("Cannot set VoiceFallbackUrl without setting Url", FALLBACK_ALONE)
        number.update(changed, date_updated=rfc_2822(time.time()))
        return web.json_response(number)

    def _found(self, request: web.Request) -> dict[str, Any]:
        found = self.known.get(request.match_info["sid"])
        if found is None:
            raise not_found(request.path)
        return found


def _fits(number: Mapping[str, Any], asked: Mapping[str, str]) -> bool:
    """Whether a number is listed: a part of it may have been asked for, and `*` is any digit."""
    digits = re.escape(asked.get("PhoneNumber", "")).replace(r"\*", "[0-9]")
    return (
        re.search(digits, number["phone_number"]) is not None
        and asked.get("FriendlyName", number["friendly_name"]) == number["friendly_name"]
        and asked.get("Origin", number["origin"]) == number["origin"]
        and (asked.get("Beta", "true") == "true" or not number["beta"])
    )


def _field(name: str) -> str:
    """`VoiceUrl` as it is shown: `voice_url`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _value(name: str, value: str) -> str | bool | None:
    if name == "VoiceCallerIdLookup":
        return value == "true"
    return value or _EMPTY.get(_field(name), value)
