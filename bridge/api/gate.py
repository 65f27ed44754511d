"""Who may use the operator's API: whoever brings the admin token."""

import hashlib
import hmac
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from aiohttp import web

from bridge import log, metrics

FAILURES: Final = 10
"""Attempts without the token that one address has in a second. Beyond them the token is not even looked at."""

_logger = log.get(__name__)


class Gate:
    """Checks bearer tokens. `monotonic` is in seconds."""

    def __init__(self, token: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._digest = _digest(token)
        self._monotonic = monotonic
        self._second = -1
        self._failures: Counter[str] = Counter()  # of this second, by address

    def check(self, request: web.Request) -> None:
        """Raise 401 unless the request brings the token, and 429 if too many from its address did not."""
        address = request.remote or ""
        if (second := int(self._monotonic())) != self._second:
            self._second, self._failures = second, Counter()
        if self._failures[address] >= FAILURES:
            metrics.REFUSALS.labels("admin_rate").inc()
            raise web.HTTPTooManyRequests(
                text=f"More than {FAILURES} attempts without the admin token in a second.",
                headers={"Retry-After": "1"},
            )
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(_digest(token.strip()), self._digest):
            return
        if not self._failures[address]:  # one line a second is enough to see it by
            _logger.warning("admin_token_refused", remote=address, header=bool(scheme))
        self._failures[address] += 1
        metrics.REFUSALS.labels("admin_token").inc()
        raise web.HTTPUnauthorized(
            text="The admin token is missing or wrong: send Authorization: Bearer with server.admin_token.",
            headers={"WWW-Authenticate": 'Bearer realm="whisper-bridge"'},
        )


def _digest(token: str) -> bytes:
    """Of one length whatever the token's, which the comparison would tell otherwise."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()
