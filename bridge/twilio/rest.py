"""Twilio's REST API: the account's client, and what its refusals mean."""

import asyncio
import base64
import logging
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from bridge.config import TwilioConfig
from bridge.errors import BridgeError
from bridge.webhook.schedule import retry_after_s

_T = TypeVar("_T")

NOT_IN_PROGRESS: Final = frozenset({21220})
"""Twilio's errors for a change of a call that is over or was not picked up."""

TIMEOUT_S: Final = 10.0
"""Of one request; the API answers within a second, or does not."""

FAULTS: Final = 500
"""The first status of HTTP that means trouble on Twilio's side."""

AT_ONCE: Final = 10
"""Requests under way at a time: an account may have far more, but it has other uses too."""

WRITES_PER_S: Final = 10
"""Changes that one process asks for. Twilio places one call a second and queues the rest; what it allows of other
changes is not told, but a burst of ours must leave room for whoever else uses the account."""

LONGEST_WAIT_S: Final = 30.0
"""A change that would have to wait longer than this for its turn is refused at once."""


class RestFailed(BridgeError):  # noqa: N818 - says what was done
    """Twilio did not do it, or did not tell; the sentence says why, and what can be done."""

    def __init__(
        self,
        sentence: str,
        status: int | None = None,
        code: int | None = None,
        *,
        passing: bool = False,
        unsure: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.status = status
        """Of HTTP; None if there was no answer."""
        self.code = code
        """Twilio's error, such as 21220."""
        self.passing = passing
        """The same may work later: it was asked too often (429), is in trouble (5xx), or did not answer."""
        self.retry_after_s = retry_after_s
        """When it may be asked again, if it said so."""
        self.unsure = unsure
        """What was asked for may have been done all the same."""

    @property
    def busy(self) -> bool:
        """Twilio answered, though not what was asked: it is there, and the same may work later."""
        return self.passing and self.status is not None

    @property
    def unknown(self) -> bool:
        """Twilio has no such thing in this account."""
        return self.status == HTTPStatus.NOT_FOUND

    @property
    def over(self) -> bool:
        """The call is not in progress: over, or not picked up yet."""
        return self.code in NOT_IN_PROGRESS


class Turns:
    """Gives out `per_s` turns a second, evenly, and none that lies more than `longest_s` ahead. Sans-I/O."""

    def __init__(self, per_s: float, longest_s: float) -> None:
        self._gap_s = 1 / per_s
        self._longest_s = longest_s
        self._next = 0.0

    def take(self, now: float) -> float | None:
        """How long from `now` (seconds, monotonic) the turn comes; None if there is no room for another."""
        turn = max(self._next, now)
        if turn - now > self._longest_s:
            return None
        self._next = turn + self._gap_s
        return turn - now


class TwilioRest:
    """A client for one account. `async with` closes its connections."""

    def __init__(self, config: TwilioConfig) -> None:
        self._account_sid = config.account_sid
        self._auth_token = config.own_token
        self._base = config.api_base_url
        self._http: _Http | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.close()

    @property
    def possible(self) -> bool:
        """Whether there is an account to use the API with."""
        return bool(self._account_sid and self._auth_token)

    async def ask(self, work: Callable[[Client], Awaitable[_T]], *, about: str) -> _T:
        """What the library's client answers to `work`, which uses its `..._async` methods.

        `about` is what is asked after, for sentences: "the call". Raises `RestFailed`.
        """
        if not self.possible:
            raise RestFailed(
                f"Twilio cannot be asked about {about}: set twilio.account_sid and twilio.auth_token."
            )
        self._http = self._http or _Http(self._base)
        client = Client(self._account_sid, self._auth_token, http_client=self._http)
        try:
            return await work(client)
        except TwilioRestException as error:
            # Without an answer of Twilio's the library gives the status for its code.
            code = None if error.code == error.status else error.code
            raise _refused(error.status, code, about) from error
        except TimeoutError as error:
            raise RestFailed(
                f"Twilio's REST API did not answer within {TIMEOUT_S:.0f} s.", passing=True, unsure=True
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise RestFailed(
                f"Twilio's REST API cannot be reached: {type(error).__name__}.",
                passing=True,
                unsure=not isinstance(error, aiohttp.ClientConnectorError),
            ) from error
        except (TwilioException, ValueError, LookupError, TypeError, AttributeError) as error:
            if isinstance(page := error.args[-1] if error.args else None, Response):
                raise _refused(page.status_code, None, about) from error
            raise RestFailed(f"Twilio's REST API answered with something else than {about}.") from error


class _Http(AsyncHttpClient):  # type: ignore[misc]  # the library is not typed
    """Carries the library's requests; to another base than Twilio's if there is one.

    The library's own has no timeout, and no other base.
    """

    def __init__(self, base: str) -> None:
        super().__init__(logging.getLogger(__name__), is_async=True)
        self._base = urlsplit(base) if base else None
        self._room = asyncio.Semaphore(AT_ONCE)
        self._turns = Turns(WRITES_PER_S, LONGEST_WAIT_S)
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    async def request(self, method: str, url: str, **asked: Any) -> Response:
        """As the library asks for it: `params`, `data`, `headers` and `auth` count."""
        credentials = base64.b64encode(":".join(asked["auth"]).encode()).decode()
        if method != "GET":
            await self._turn()
        async with (
            self._room,
            self._session.request(
                method,
                self._at_base(url),
                params=asked["params"],
                data=asked["data"],
                headers={**asked["headers"], "Authorization": f"Basic {credentials}"},
                allow_redirects=False,
            ) as answer,
        ):
            if answer.status == HTTPStatus.TOO_MANY_REQUESTS:  # the library's error has no headers
                raise _refused(answer.status, None, "it", answer.headers.get("Retry-After"))
            return Response(answer.status, await answer.text(errors="replace"), answer.headers)

    async def close(self) -> None:
        await self._session.close()

    async def _turn(self) -> None:
        """Wait until one more change may be asked for."""
        wait_s = self._turns.take(asyncio.get_running_loop().time())
        if wait_s is None:
            raise RestFailed(
                f"Too many changes wait for Twilio's REST API already: it is asked for {WRITES_PER_S} a second.",
                passing=True,
            )
        await asyncio.sleep(wait_s)

    def _at_base(self, url: str) -> str:
        if self._base is None:
            return url
        asked = urlsplit(url)
        path = self._base.path.rstrip("/") + asked.path
        return urlunsplit((self._base.scheme, self._base.netloc, path, asked.query, ""))


def _refused(status: int, code: int | None, about: str, retry_after: str | None = None) -> RestFailed:
    fault = status >= FAULTS
    return RestFailed(
        _sentence(status, code, about),
        status,
        code,
        passing=fault or status == HTTPStatus.TOO_MANY_REQUESTS,
        unsure=fault,
        retry_after_s=retry_after_s(retry_after, time.time()),
    )


def _sentence(status: int, code: int | None, about: str) -> str:
    if code in NOT_IN_PROGRESS:
        return f"The call is not in progress ({code}): it is over, or nobody has picked up yet."
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return (
            f"Twilio's REST API refused the credentials ({status}): check twilio.account_sid and "
            "twilio.auth_token."
        )
    if status == HTTPStatus.NOT_FOUND:
        return f"Twilio's REST API does not know {about} (404): it is another account's, or long gone."
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "Twilio's REST API was asked too often (429)."
    # Twilio's own words may have a telephone number in them.
    explained = f", error {code}: see https://www.twilio.com/docs/errors/{code}" if code else ""
    return f"Twilio's REST API answered {status}{explained}."
