"""One signed POST: what is sent, how long it may take, and what the answer means."""

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Self

import aiohttp
from standardwebhooks.webhooks import Webhook

from bridge import __version__
from bridge.errors import ConfigError
from bridge.webhook.schedule import retry_after_s
from bridge.webhook.secret import check_secret
from bridge.webhook.target import Lookup, Names, Target, TargetRefused, Targets, connector

Secrets = Callable[[str], Sequence[str]]
"""The secrets of an endpoint: more than one while they are being rotated."""

CONNECT_S = 2.0
TOTAL_S = 10.0
ANSWER_BYTES = 4096
"""As much of an answer's body is read, and thrown away, so that its connection can be used again."""

ANSWER_S = 0.5
"""As long may that take once the status is known."""

REPLAYED = {"bridge-replay": "1"}

REFUSALS = frozenset({400, 413, 422})
"""Answers of a receiver that works and does not want this event: malformed, too large, not understood."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one attempt."""

    status: int | None = None
    """Of the answer; None: there was none."""
    error: str = ""
    """Why it is a failure, in words that may be logged and stored; empty: it was accepted."""
    throttled: bool = False
    """The receiver has too much to do: a 429 or a timeout."""
    retry_after_s: float | None = None

    @property
    def accepted(self) -> bool:
        """The receiver answered 2xx."""
        return not self.error

    @property
    def refused(self) -> bool:
        """The receiver is up, and does not want this event."""
        return self.status in REFUSALS


class Sender:
    """Posts signed bodies to allowed targets. An async context manager, or `start` and `close`.

    `clock` gives seconds since 1970 for the signatures. Callers bound how many posts run at a time.
    """

    def __init__(
        self,
        secrets: Secrets,
        targets: Targets,
        *,
        clock: Callable[[], float] = time.time,
        total_s: float = TOTAL_S,
        lookup: Lookup = socket.getaddrinfo,
    ) -> None:
        self._secrets = secrets
        self._targets = targets
        self._check_url = lru_cache(maxsize=256)(targets.check_url)
        self._clock = clock
        self._timeout = aiohttp.ClientTimeout(total=total_s, connect=CONNECT_S)
        self._lookup = lookup
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._names: list[Names] = []

    async def start(self) -> None:
        """Make the connection pools: one for public targets, one for those that must lie inside."""
        for inside_only in (False, True):
            pool, names = connector(self._targets, inside_only=inside_only, lookup=self._lookup)
            self._names.append(names)
            self._sessions[inside_only] = aiohttp.ClientSession(
                connector=pool,
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={
                    "content-type": "application/json",
                    "user-agent": f"whisper-bridge/{__version__}",
                    "accept-encoding": "identity",
                },
            )

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        for session in self._sessions.values():
            await session.close()
        for names in self._names:
            await names.close()
        self._sessions.clear()
        self._names.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def post(self, endpoint: str, event_id: str, body: bytes, *, replay: bool = False) -> Outcome:
        """Send `body` once, signed now with every secret of the endpoint. Whatever goes wrong is an `Outcome`.

        `replay` marks it as sent again on an operator's request.
        """
        try:
            target = self._check_url(endpoint)
            headers = self._sign(endpoint, event_id, body) | (REPLAYED if replay else {})
            return await self._post(target, headers, body)
        except ConfigError as error:
            return Outcome(error=str(error))
        except TimeoutError:
            return Outcome(error="timeout", throttled=True)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(error=_reason(error))

    def _sign(self, endpoint: str, event_id: str, body: bytes) -> dict[str, str]:
        now = int(self._clock())
        secrets = self._secrets(endpoint)
        if not secrets:
            raise ConfigError("There is no webhook secret to sign with: set [webhook] secret.")
        at = datetime.fromtimestamp(now, UTC)
        text = body.decode()
        return {
            "webhook-id": event_id,
            "webhook-timestamp": str(now),
            "webhook-signature": " ".join(_signer(secret).sign(event_id, at, text) for secret in secrets),
        }

    async def _post(self, target: Target, headers: dict[str, str], body: bytes) -> Outcome:
        session = self._sessions[target.inside_only]
        async with session.post(target.url, data=body, headers=headers, allow_redirects=False) as answer:
            await _discard(answer)
            if 200 <= answer.status < 300:
                return Outcome(status=answer.status)
            return Outcome(
                status=answer.status,
                error=f"status {answer.status}",
                throttled=answer.status == 429,
                retry_after_s=retry_after_s(answer.headers.get("retry-after"), self._clock()),
            )


async def _discard(answer: aiohttp.ClientResponse) -> None:
    # The status decides. A body that is long, slow or broken costs its connection, nothing else.
    if answer.content.is_eof():
        return  # it came with the status, all of it
    left = ANSWER_BYTES
    try:
        async with asyncio.timeout(ANSWER_S):
            while left > 0 and not answer.content.at_eof():
                left -= len(await answer.content.read(left))
    except (TimeoutError, aiohttp.ClientError, OSError):
        answer.close()


@lru_cache(maxsize=256)
def _signer(secret: str) -> Webhook:
    check_secret(secret)
    return Webhook(secret)


def _reason(error: Exception) -> str:
    """The class of an error, in words that hold nothing of the URL but its host."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, TargetRefused):
        return str(cause)
    if isinstance(error, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name not found"
    if isinstance(error, aiohttp.ClientConnectorError):
        return "connection refused or unreachable"
    if isinstance(error, (aiohttp.ClientError, OSError)):
        return "connection lost or answer unreadable"
    return "cannot be sent"
