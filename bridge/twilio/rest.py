"""Twilio's REST API, as far as it is asked: what became of a call."""

import asyncio
import base64
import logging
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from bridge.config import TwilioConfig
from bridge.errors import BridgeError

TIMEOUT_S: Final = 10.0
"""Of one request; the API answers within a second, or does not."""

AT_ONCE: Final = 10
"""Requests under way at a time: an account may have far more, but it has other uses too."""

OVER: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
"""The statuses that a call does not leave again."""


NONSENSE: Final = "Twilio's REST API answered with something else than a call."


class RestFailed(BridgeError):  # noqa: N818 - says what was done
    """Twilio did not tell; the sentence says why, and what can be done."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What Twilio says of a call."""

    status: str
    ended_at: float | None
    """In whole seconds since 1970."""

    @property
    def over(self) -> bool:
        """Whether nobody is on the line any more."""
        return self.status in OVER


class TwilioRest:
    """A client for one account. `async with` closes its connections."""

    def __init__(self, config: TwilioConfig) -> None:
        self._account_sid = config.account_sid
        self._auth_token = config.auth_token.get_secret_value()
        self._base = config.api_base_url
        self._http: _Http | None = None
        self._room = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    async def fate(self, call_sid: str) -> Fate:
        """What became of a call. Raises `RestFailed`."""
        if not (self._account_sid and self._auth_token):
            raise RestFailed(
                "Twilio cannot be asked about the call: set twilio.account_sid and twilio.auth_token."
            )
        self._http = self._http or _Http(self._base)
        client = Client(self._account_sid, self._auth_token, http_client=self._http)
        try:
            async with self._room:
                call = await client.calls(call_sid).fetch_async()
        except TwilioRestException as error:
            raise RestFailed(_sentence(error.status)) from error
        except TimeoutError as error:
            raise RestFailed(f"Twilio's REST API did not answer within {TIMEOUT_S:.0f} s.") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RestFailed(f"Twilio's REST API cannot be reached: {type(error).__name__}.") from error
        except (TwilioException, ValueError, LookupError, TypeError, AttributeError) as error:
            raise RestFailed(NONSENSE) from error
        if not isinstance(call.status, str):
            raise RestFailed(NONSENSE)
        # The library hands on what it cannot read.
        ended_at = call.end_time.timestamp() if isinstance(call.end_time, datetime) else None
        return Fate(call.status, ended_at)


class _Http(AsyncHttpClient):  # type: ignore[misc]  # the library is not typed
    """Carries the library's requests; to another base than Twilio's if there is one.

    The library's own has no timeout, and no other base.
    """

    def __init__(self, base: str) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._base = urlsplit(base) if base else None
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def request(self, method: str, url: str, **asked: Any) -> Response:
        """As the library asks for it: `params`, `data`, `headers` and `auth` count."""
        credentials = base64.b64encode(":".join(asked["auth"]).encode()).decode()
        async with self._session.request(
            method,
            self._at_base(url),
            params=asked["params"],
            data=asked["data"],
            headers={**asked["headers"], "Authorization": f"Basic {credentials}"},
            allow_redirects=False,
        ) as answer:
            return Response(answer.status, await answer.text(errors="replace"), answer.headers)

    async def close(self) -> None:
        await self._session.close()

    def _at_base(self, url: str) -> str:
        if self._base is None:
            return url
        asked = urlsplit(url)
        path = self._base.path.rstrip("/") + asked.path
        return urlunsplit((self._base.scheme, self._base.netloc, path, asked.query, ""))


def _sentence(status: int) -> str:
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return (
            f"Twilio's REST API refused the credentials ({status}): check twilio.account_sid and "
            "twilio.auth_token."
        )
    if status == HTTPStatus.NOT_FOUND:
        return "Twilio's REST API does not know the call (404): it is another account's, or long gone."
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "Twilio's REST API was asked too often (429)."
    return f"Twilio's REST API answered {status}."
