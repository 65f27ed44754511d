"""X-Twilio-Signature: who asks is Twilio, on behalf of our account.

The signed text is the URL exactly as Twilio requested it, so it is built from the configured public address
and never from `Host`. twilio's own validator tries a WebSocket URL with port 80, where Twilio may sign with
443, so the candidates for the upgrade are ours; the signature itself is computed by twilio's library.
"""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qs

from multidict import MultiDict, MultiDictProxy
from twilio.request_validator import RequestValidator

from bridge.twilio.addresses import stream_origin

Form = MultiDict[str] | MultiDictProxy[str]

HEADER: Final = "X-Twilio-Signature"


class Signatures:
    """Checks signatures made with any of `auth_tokens`, for an application that Twilio knows as `public_url`."""

    def __init__(self, auth_tokens: Iterable[str], public_url: str) -> None:
        self._validators = [RequestValidator(token) for token in auth_tokens]
        self._public_url = public_url
        self._stream_origin = stream_origin(public_url)

    @property
    def stream_origin(self) -> str:
        """The public address with the scheme of a WebSocket."""
        return self._stream_origin

    def post_is_valid(self, path: str, form: Form, signature: str) -> bool:
        """Whether Twilio signed a POST of `form` to `path` (with its query, as it was requested)."""
        return self._any(_with_and_without_port(self._public_url + path, "443"), form, signature)

    def body_is_valid(self, path: str, body: bytes, signature: str) -> bool:
        """Whether Twilio signed a POST of `body`, which is no form: its SHA-256 is part of the signed query."""
        given = parse_qs(path.partition("?")[2]).get("bodySHA256", [""])[-1]
        digest = hashlib.sha256(body).hexdigest()
        same = hmac.compare_digest(digest.encode(), given.lower().encode(errors="replace"))
        return self.post_is_valid(path, MultiDict(), signature) and same

    def upgrade_is_valid(self, path: str, signature: str) -> bool:
        """Whether Twilio signed the WebSocket upgrade at `path`."""
        return self._any(_with_and_without_port(self._stream_origin + path, "443"), MultiDict(), signature)

    def fits(self, url: str, form: Form, signature: str) -> bool:
        """Whether one of our tokens signed exactly this."""
        given = signature.encode(errors="replace")
        expected = (validator.compute_signature(url, form).encode() for validator in self._validators)
        return any(hmac.compare_digest(each, given) for each in expected)

    def _any(self, urls: Iterable[str], form: Form, signature: str) -> bool:
        return any(self.fits(url, form, signature) for url in urls)


def _with_and_without_port(url: str, port: str) -> list[str]:
    """`url`, and the same URL with the default port written out or left out."""
    scheme, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    host, colon, given = authority.rpartition(":")
    if not colon or authority.endswith("]"):
        return [url, f"{scheme}://{authority}:{port}{slash}{path}"]
    return [url, f"{scheme}://{host}{slash}{path}"] if given == port else [url]
