"""A webhook receiver on this machine: verifies every signature, records everything, misbehaves on request."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from bridge.errors import BridgeError

MAX_BODY: Final = 1 << 20
"""Bytes. An event is advised to stay below 20 kB; a whole call's transcript may be longer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one request is answered, after `delay_s` seconds."""

    status: int = 200
    retry_after: str | None = None
    delay_s: float = 0.0
    manner: Literal["answer", "hang", "drop"] = "answer"
    """`hang`: no answer until the sender gives up. `drop`: the connection is closed without one."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came in."""

    webhook_id: str
    verified: bool
    """Whether the Standard Webhooks signature over these very bytes is valid, for any of the secrets."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    event: dict[str, Any] | None
    """The body as JSON; None if it is no JSON object."""
    received_at: float
    """Wall time (`time.time()`)."""
    answer: Answer = Answer()
    """What the sender was or will be told."""

    @property
    def type(self) -> str:
        """The event's type, empty if it has none."""
        return str((self.event or {}).get("type", ""))

    @property
    def data(self) -> dict[str, Any]:
        """The event's data, empty if it has none."""
        data = (self.event or {}).get("data")
        return data if isinstance(data, dict) else {}

    @property
    def call_sid(self) -> str:
        """Whose event this is, empty if it does not say."""
        return str(self.data.get("call_sid", ""))

    @property
    def accepted(self) -> bool:
        """Whether the sender was told 2xx."""
        return self.answer.manner == "answer" and 200 <= self.answer.status < 300


_UNVERIFIED: Final = Answer(401)


class Receiver:
    """Takes webhooks at `url` while it is open: `async with Receiver(secret) as receiver`.

    `secret` is `whsec_...`, several while rotating. `on_event` is called with each request, before it is
    answered. Raises BridgeError when the port cannot be had.
    """

    def __init__(
        self,
        secret: str | Sequence[str],
        host: str = "127.0.0.1",
        port: int = 0,
        on_event: Callable[[Received], None] | None = None,
    ) -> None:
        secrets = [secret] if isinstance(secret, str) else secret
        self._verifiers = [Webhook(one) for one in secrets]
        self._host, self._port = host, port
        self._on_event = on_event
        self._script: deque[Answer] = deque()
        self._scripts: dict[str, deque[Answer]] = {}
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.default = Answer()
        """The answer to a verified request that no script covers (an unverified one gets 401); may be changed."""
        self.received: list[Received] = []
        """Every request, in order of arrival."""

    @property
    def url(self) -> str:
        """Where to post. The port is known once the receiver is open, and stays for a second opening."""
        return f"http://{self._host}:{self._port}/"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/{path:.*}", self._post)
        self._closing.clear()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            where = f"{self._host}:{self._port}"
            raise BridgeError(f"cannot receive webhooks at {where}: {error.strerror or error}.") from None
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def script(self, *answers: Answer, call_sid: str | None = None) -> None:
        """Answer the next requests like this, in turn; with `call_sid`, the next of that call."""
        queue = self._script if call_sid is None else self._scripts.setdefault(call_sid, deque())
        queue.extend(answers)

    async def wait_for(self, predicate: Callable[[Received], bool], timeout: float = 10.0) -> Received:
        """The first request, past or future, that `predicate` likes. Raises TimeoutError after `timeout` s."""
        seen = 0
        async with asyncio.timeout(timeout), self._changed:
            while True:
                for received in self.received[seen:]:
                    seen += 1
                    if predicate(received):
                        return received
                await self._changed.wait()

    async def wait_for_type(
        self, type_: str, timeout: float = 10.0, *, call_sid: str | None = None
    ) -> Received:
        """The first accepted event of this type. Raises TimeoutError after `timeout` s."""
        return await self.wait_for(
            lambda one: one.type == type_ and one.accepted and call_sid in {None, one.call_sid}, timeout
        )

    async def _post(self, request: web.Request) -> web.StreamResponse:
        received_at = time.time()
        body = await request.read()
        event = _json_object(body)
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(
            webhook_id=headers.get("webhook-id", ""),
            verified=self._verify(body, headers),
            headers=headers,
            body=body,
            event=event,
            received_at=received_at,
        )
        received = replace(received, answer=self._next_answer(received))
        self.received.append(received)
        if self._on_event is not None:
            self._on_event(received)
        async with self._changed:
            self._changed.notify_all()
        return await self._answer(request, received.answer)

    async def _answer(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        wait = None if answer.manner == "hang" else answer.delay_s
        if wait != 0:
            try:
                async with asyncio.timeout(wait):
                    await self._closing.wait()
            except TimeoutError:
                pass
        if answer.manner != "answer" and request.transport is not None:
            request.transport.abort()
        headers = {} if answer.retry_after is None else {"Retry-After": answer.retry_after}
        return web.Response(status=answer.status, headers=headers)

    def _next_answer(self, received: Received) -> Answer:
        script = self._scripts.get(received.call_sid) or self._script
        if script:
            return script.popleft()
        return self.default if received.verified else _UNVERIFIED

    def _verify(self, body: bytes, headers: Mapping[str, str]) -> bool:
        for verifier in self._verifiers:
            try:
                verifier.verify(body, dict(headers), json_parse=False)
            except (WebhookVerificationError, ValueError):
                continue
            return True
        return False


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(body)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
