"""The API itself: who may ask, what goes wrong, and what was asked."""

import base64
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self, cast

from aiohttp import web

from bridge.local.twilio.account import Account
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest.applications import Applications
from bridge.local.twilio.rest.calls import Calls
from bridge.local.twilio.rest.fault import Faults, refused
from bridge.local.twilio.rest.numbers import Numbers
from bridge.local.twilio.rest.refusal import NO_METHOD, TOO_MANY, UNAUTHORIZED, Refused, not_found
from bridge.local.twilio.rest.streams import Streams

BASE: Final = "/2010-04-01/Accounts/{account}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, whatever became of it."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class RestApi:
    """Answers at `url` while it is open: `async with RestApi(account) as api`.

    Point `twilio.api_base_url` there. Calls are added when they are made; numbers and applications are
    `api.numbers.add(...)` and `api.applications.add(...)`.
    """

    def __init__(self, account: Account, calls: Iterable[SimulatedCall] = (), port: int = 0) -> None:
        self.applications = Applications(account.sid)
        self.numbers = Numbers(account.sid, self.applications)
        self.calls = Calls(account, self.numbers, self.applications)
        self.faults = Faults()
        self.refuse: int | None = None
        """An HTTP status that everything is answered with instead."""
        self.per_s: int | None = None
        """More requests than these within a second are answered with 429."""
        self.requests: list[Asked] = []
        """Every request that came."""
        self._recent: deque[float] = deque()
        self._streams = Streams(account.sid, self.calls)
        self._account = account
        self._port = port
        self._runner: web.AppRunner | None = None
        for call in calls:
            self.calls.add(call)

    @property
    def url(self) -> str:
        """What stands for `https://api.twilio.com`."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def asked(self) -> list[str]:
        """Method and path of each request."""
        return [str(one) for one in self.requests]

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._middleware])
        for noun in (self.calls, self._streams, self.numbers, self.applications):
            app.add_routes(noun.routes(BASE))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.calls.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def add(self, call: SimulatedCall) -> SimulatedCall:
        """Have a call known."""
        return self.calls.add(call)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(Asked(request.method, request.path, dict(request.query), form))
        fault = self.faults.of(f"{request.method} {request.path}")
        try:
            if fault is not None and not fault.afterwards:
                await fault.happen()
            answer = await self._answer(request, handler)
            if fault is not None and fault.afterwards:
                await fault.happen()
        except Refused as refused:
            return refused.answer()
        except ConnectionError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        return answer

    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self._admit(request)
        try:
            return cast("web.StreamResponse", await handler(request))
        except web.HTTPMethodNotAllowed:
            status = HTTPStatus.METHOD_NOT_ALLOWED
            raise Refused(f"{request.method} is not allowed here.", NO_METHOD, status) from None
        except web.HTTPNotFound:
            raise not_found(request.path) from None

    def _admit(self, request: web.Request) -> None:
        """Raise Refused for who may not ask, or asks too often."""
        if self.refuse is not None:
            raise refused(self.refuse)
        now = time.monotonic()
        while self._recent and self._recent[0] <= now - 1:
            self._recent.popleft()
        if self.per_s is not None and len(self._recent) >= self.per_s:
            raise Refused("Too Many Requests", TOO_MANY, HTTPStatus.TOO_MANY_REQUESTS)
        self._recent.append(now)
        credentials = f"{self._account.sid}:{self._account.auth_token}".encode()
        if request.headers.get("Authorization") != f"Basic {base64.b64encode(credentials).decode()}":
            raise Refused("Authenticate", UNAUTHORIZED, HTTPStatus.UNAUTHORIZED)
        if not request.path.startswith(BASE.format(account=self._account.sid) + "/"):
            raise not_found(request.path)
