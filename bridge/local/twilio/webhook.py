"""The HTTP half of a simulated Twilio: signed requests for documents, and stream status callbacks."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from bridge.local.twilio.account import Account
from bridge.local.twilio.address import Address, is_loopback
from bridge.local.twilio.script import WEBHOOK_S
from bridge.local.twilio.twiml import TwimlError, Verb, parse

_XML: Final = frozenset({"text/xml", "application/xml", "text/html"})
"""Content types that Twilio reads as TwiML."""


class CallFailedError(Exception):
    """Twilio would have ended the call; the message is a sentence for its report, `code` Twilio's error."""

    def __init__(self, sentence: str, code: int = 11200) -> None:
        super().__init__(sentence)
        self.code = code


class Webhooks:
    """Posts to the bridge as Twilio does: signed for the public URL, sent to where the bridge really is."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        account: Account,
        address: Address,
        *,
        timeout_s: float = WEBHOOK_S,
    ) -> None:
        self._session = session
        self._timeout_s = timeout_s
        self._account = account
        self._address = address
        self.first_status: int | None = None
        """HTTP status of the first document; None when nothing answered."""

    def reach(self, url: str) -> str | None:
        """Where to connect for `url`; None for strangers: only the bridge and this machine are spoken to."""
        return self._address.reach(url) or (url if is_loopback(url) else None)

    async def document(self, url: str, target: str, method: str, form: Mapping[str, str]) -> Sequence[Verb]:
        """The TwiML at `url`. Raises CallFailedError for what would end a call at Twilio."""
        try:
            async with self._request(method, url, target, form) as answer:
                text = await answer.text()
        except UnicodeDecodeError:
            raise CallFailedError(f"12100: the answer of {target} is not text.", 12100) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CallFailedError(f"11200: no answer from {target}: {self._reason(error)}.") from None
        if self.first_status is None:
            self.first_status = answer.status
        if answer.status != HTTPStatus.OK:
            raise CallFailedError(_refusal(target, answer.status))
        if answer.content_type not in _XML:
            raise CallFailedError(
                f"12300: {target} answered with the content type {answer.content_type}, not text/xml.", 12300
            )
        try:
            return parse(text, url)
        except TwimlError as error:
            raise CallFailedError(f"the TwiML of {target} is not valid: {error}", 12100) from None

    async def callback(self, url: str, method: str, form: Mapping[str, str]) -> int | None:
        """One status callback; returns the HTTP status, None without an answer (or for a stranger)."""
        target = self.reach(url)
        if target is None:
            return None
        try:
            async with self._request(method, url, target, form) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    def _request(
        self, method: str, url: str, target: str, form: Mapping[str, str]
    ) -> "aiohttp.client._RequestContextManager":
        if method == "GET":
            query = ("&" if "?" in url else "?") + urlencode(form)
            url, target, form = url + query, target + query, {}
        headers = {"X-Twilio-Signature": self._account.signature(url, form), "User-Agent": "TwilioProxy/1.1"}
        return self._session.request(
            method,
            URL(target, encoded=True),  # what was signed, and not what is as good
            data=form or None,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
        )

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"it took longer than {self._timeout_s:g} s"
        if isinstance(error, aiohttp.ClientConnectorError):
            return os.strerror(error.os_error.errno) if error.os_error.errno else "the connection failed"
        return type(error).__name__


def voice_form(
    account_sid: str, call_sid: str, status: str, caller: str, called: str, *, direction: str = "inbound"
) -> dict[str, str]:
    """The fields of a voice webhook; Twilio sends what it does not know about places as empty values."""
    form = {
        "AccountSid": account_sid,
        "ApiVersion": "2010-04-01",
        "CallSid": call_sid,
        "CallStatus": status,
        "Direction": direction,
    }
    for who, number in (("From", caller), ("To", called), ("Caller", caller), ("Called", called)):
        form |= {who: number, f"{who}City": "", f"{who}State": "", f"{who}Zip": "", f"{who}Country": "US"}
    return form


def stream_form(
    account_sid: str, call_sid: str, stream_sid: str, name: str, event: str, *, error: str = ""
) -> dict[str, str]:
    """The fields of a stream's status callback; `StreamError` comes with `stream-error` only."""
    form = {
        "AccountSid": account_sid,
        "CallSid": call_sid,
        "StreamSid": stream_sid,
        "StreamName": name,
        "StreamEvent": event,
        "Timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return form | {"StreamError": error} if event == "stream-error" else form


def _refusal(url: str, status: int) -> str:
    if status == HTTPStatus.FORBIDDEN:
        return (
            f"the bridge refused the call with 403 at {url}: the signature does not fit. Account SID, auth token "
            "and public_url must be those of the bridge."
        )
    return f"11200: {url} answered {status}, where Twilio expects 200 and TwiML."
