"""The stream token: lets in exactly one stream of one call, and says whose call it is.

It travels as a `<Parameter>` of the TwiML, because Twilio drops query strings of stream URLs. Who calls whom
is known when Twilio asks for TwiML but is not part of the stream's `start`; it travels inside the token, so
any process with the same account can take the stream.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from typing import Final

import msgspec

PARAMETER: Final = "bridge_token"
"""The `<Parameter>` that carries it."""

LIFE_S: Final = 60.0
"""Twilio opens the stream within seconds of the answer."""

LONGEST_FIELD: Final = 80
"""Characters kept of each party's address: a parameter may have 500 characters in all."""


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a token says. `expires` is in seconds since 1970."""

    call_sid: str
    account_sid: str
    from_: str
    to: str
    direction: str
    expires: float
    nonce: str


class TokenRefused(Exception):  # noqa: N818 - says what was done with it
    """The stream may not be admitted; the message is one of a few fixed words, fit for a metric."""


class StreamTokens:
    """Issues and checks tokens under a key derived from `secret`. Sans-I/O; `now` is seconds since 1970.

    Whether one was used before is for the outbox to say, which remembers it across restarts.
    """

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"whisper-bridge stream token\n" + secret.encode()).digest()

    def issue(
        self, *, call_sid: str, account_sid: str, from_: str, to: str, direction: str, now: float
    ) -> str:
        """A token that admits one stream of this call for `LIFE_S` seconds."""
        parties = [value[:LONGEST_FIELD] for value in (from_, to, direction)]
        ticket = msgspec.convert(
            [call_sid, account_sid, *parties, now + LIFE_S, secrets.token_urlsafe(9)], Ticket
        )
        claims = _text(msgspec.json.encode(ticket))
        return f"v1.{claims}.{self._mac(claims)}"

    def read(self, token: str, *, call_sid: str, account_sid: str, now: float) -> Ticket:
        """What the token says; raises `TokenRefused`."""
        version, _, rest = token.partition(".")
        claims, _, mac = rest.partition(".")
        if not token:
            raise TokenRefused("missing")
        if version != "v1" or not hmac.compare_digest(
            self._mac(claims).encode(), mac.encode(errors="replace")
        ):
            raise TokenRefused("forged")
        try:
            ticket = msgspec.json.decode(
                base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=Ticket
            )
        except (msgspec.DecodeError, binascii.Error) as error:
            raise TokenRefused("forged") from error
        if (ticket.call_sid, ticket.account_sid) != (call_sid, account_sid):
            raise TokenRefused("other_call")
        if ticket.expires <= now:
            raise TokenRefused("expired")
        return ticket

    def _mac(self, claims: str) -> str:
        return _text(hmac.new(self._key, f"v1\n{claims}".encode(errors="replace"), hashlib.sha256).digest())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
