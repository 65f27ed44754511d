"""The simulated account: its identifiers, and the signature that Twilio puts on every request."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from twilio.request_validator import RequestValidator


@dataclass(frozen=True, slots=True)
class Account:
    """Whose calls these are. The auth token never appears in a repr."""

    sid: str
    auth_token: str = field(repr=False)

    def signature(self, url: str, form: Mapping[str, str] | None = None) -> str:
        """`X-Twilio-Signature` of a request to `url`, which for a WebSocket begins with wss://.

        Twilio's own library computes it, so that the bridge is held against an independent authority.
        """
        signature: str = RequestValidator(self.auth_token).compute_signature(url, dict(form or {}))
        return signature


def new_sid(prefix: str) -> str:
    """A Twilio identifier: two letters (CA a call, MZ a stream) and 32 hexadecimal digits, never twice."""
    return prefix + secrets.token_hex(16)
