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
from collections.abc import Sequence
from typing import Final

import msgspec

PARAMETER: Final = "bridge_token"
"""The `<Parameter>` that carries it."""

LIFE_S: Final = 60.0
"""Twilio opens the stream within seconds of the answer."""

AGAIN_S: Final = 90.0
"""A stream that is asked for by REST may take longer: Twilio queues what it is asked for."""

LONGEST_S: Final = 120.0
"""No token lives longer: one that says so was made with a clock that is wrong, or by somebody else."""

LONGEST_FIELD: Final = 80
"""Bytes kept of each party's address, as JSON has it: a parameter may have 500 characters in all."""


class Ticket(msgspec.Struct, frozen=True, array_like=True):
    """What a token says. `expires` is in seconds since 1970."""

    call_sid: str
    account_sid: str
    from_: str
    to: str
    direction: str
    expires: float
    nonce: str
    again: bool = False
    """The call was streamed before: its outbox knows where to go on."""
    by_hand: bool = False
    """The operator asked for it: the stream listens beside a call flow that may not be ours, whatever the mode."""


class TokenRefused(Exception):  # noqa: N818 - says what was done with it
    """The stream may not be admitted; the message is one of a few fixed words, fit for a metric."""


class StreamTokens:
    """Issues tokens under a key derived from the first of `auth_tokens`, and accepts those of all of them.

    Sans-I/O; `now` is seconds since 1970. Whether one was used before is for the outbox to say, which remembers
    it across restarts.
    """

    def __init__(self, auth_tokens: Sequence[str]) -> None:
        self._keys = [
            hashlib.sha256(b"whisper-bridge stream token\n" + token.encode()).digest()
            for token in auth_tokens
        ]

    def issue(
        self,
        *,
        call_sid: str,
        account_sid: str,
        from_: str,
        to: str,
        direction: str,
        now: float,
        again: bool = False,
        by_hand: bool = False,
    ) -> str:
        """A token that admits one stream of this call for `LIFE_S` seconds, and for `AGAIN_S` one that comes `again`."""
        from_, to, direction = (_short(value) for value in (from_, to, direction))
        expires = now + (AGAIN_S if again else LIFE_S)
        nonce = secrets.token_urlsafe(9)
        ticket = Ticket(call_sid, account_sid, from_, to, direction, expires, nonce, again, by_hand)
        claims = _text(msgspec.json.encode(ticket))
        return f"v1.{claims}.{_mac(self._keys[0], claims)}"

    def read(self, token: str, *, call_sid: str, account_sid: str, now: float) -> Ticket:
        """What the token says; raises `TokenRefused`."""
        version, _, rest = token.partition(".")
        claims, _, mac = rest.partition(".")
        if not token:
            raise TokenRefused("missing")
        if version != "v1" or not self._made_by_us(claims, mac):
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
        if ticket.expires > now + LONGEST_S:
            raise TokenRefused("future")
        return ticket

    def _made_by_us(self, claims: str, mac: str) -> bool:
        given = mac.encode(errors="replace")
        return any(hmac.compare_digest(_mac(key, claims).encode(), given) for key in self._keys)


def _short(text: str) -> str:
    """As much as there is room for: in JSON a character has up to six bytes."""
    text = text[:LONGEST_FIELD]
    while len(msgspec.json.encode(text)) - len('""') > LONGEST_FIELD:
        text = text[:-1]
    return text


def _mac(key: bytes, claims: str) -> str:
    return _text(hmac.new(key, f"v1\n{claims}".encode(errors="replace"), hashlib.sha256).digest())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
