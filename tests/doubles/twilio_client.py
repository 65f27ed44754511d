"""The real library's client, with the library's own transport, pointed at a simulated API."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from bridge.local.twilio.account import Account
from bridge.local.twilio.rest import RestApi

T = TypeVar("T")


class TwilioClient:
    """Asks in a thread, since the library waits."""

    def __init__(self, account: Account, api: RestApi) -> None:
        self.client = Client(account.sid, account.auth_token, http_client=_Transport(api.url))

    async def ask(self, work: Callable[[Client], T]) -> T:
        """What the library makes of it."""
        return await asyncio.to_thread(work, self.client)

    async def refused(self, work: Callable[[Client], Any]) -> tuple[int, int | None]:
        """HTTP status and Twilio's code of a refusal. Of a list the library only tells the answer itself."""
        with pytest.raises(TwilioException) as caught:
            await self.ask(work)
        if isinstance(caught.value, TwilioRestException):
            return caught.value.status, caught.value.code
        answer = caught.value.args[1]
        return answer.status_code, json.loads(answer.text)["code"]


class _Transport(TwilioHttpClient):  # type: ignore[misc]  # the library is not typed
    def __init__(self, base: str) -> None:
        super().__init__(pool_connections=False, timeout=10)
        self._base = base

    def request(self, method: str, url: str, **asked: Any) -> Response:
        return super().request(method, url.replace("https://api.twilio.com", self._base), **asked)
