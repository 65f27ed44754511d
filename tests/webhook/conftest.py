"""A webhook receiver on this machine, an outbox with a clock, and a delivery between them."""

import asyncio
import ipaddress
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook

from bridge.outbox.outbox import Outgoing
from bridge.outbox.sqlite import Sqlite
from bridge.webhook.delivery import Delivery
from bridge.webhook.lane import LEASE_S
from bridge.webhook.target import Targets

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes
    request: web.Request
    at: float = field(default_factory=time.perf_counter)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Answer = Callable[[Received], Awaitable[web.StreamResponse]]


class Receiver:
    """Keeps every POST; `answers` says what a path answers, 204 otherwise. Verifies every signature."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: dict[str, Answer] = {}
        self.secret = SECRET
        self.port = 0
        self._news = asyncio.Condition()

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str = "/hook") -> list[Received]:
        return [received for received in self.received if received.path == path]

    def ids(self, path: str = "/hook") -> list[str]:
        return [received.id for received in self.at(path)]

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(reached)

    async def count(self, number: int, path: str = "/hook") -> None:
        await self.until(lambda: len(self.at(path)) >= number)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        received = Received(request.path, headers, await request.read(), request)
        Webhook(self.secret).verify(received.body, headers)
        self.received.append(received)
        async with self._news:
            self._news.notify_all()
        answer = self.answers.get(request.path)
        return web.Response(status=204) if answer is None else await answer(received)

    def status(self, path: str, *statuses: int, headers: dict[str, str] | None = None) -> None:
        """Answer with these, one after the other, then 204."""
        left = list(statuses)

        async def answer(_: Received) -> web.StreamResponse:
            return web.Response(status=left.pop(0), headers=headers) if left else web.Response(status=204)

        self.answers[path] = answer


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", receiver.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.port = runner.addresses[0][1]
    yield receiver
    await runner.cleanup()


LOOPBACK = Targets([ipaddress.ip_network("127.0.0.0/8")])


class Line:
    """An outbox, a delivery that can be stopped and started, and a clock that can be moved ahead."""

    def __init__(self, directory: Path) -> None:
        self.ahead = 0.0
        self.lease_s = LEASE_S
        self.outbox = Sqlite(directory, self.clock)
        self.delivery: Delivery | None = None
        self.secrets = [SECRET]
        self.targets = LOOPBACK

    def clock(self) -> float:
        return time.time() + self.ahead

    async def start(self, in_flight: int = 500, per_endpoint: int = 100) -> None:
        self.delivery = Delivery(
            self.outbox,
            lambda _: self.secrets,
            self.targets,
            clock=self.clock,
            monotonic=lambda: time.monotonic() + self.ahead,
            jitter=lambda: 0.5,
            in_flight=in_flight,
            per_endpoint=per_endpoint,
            lease_s=self.lease_s,
        )
        self.delivery._means.sender._clock = time.time  # receivers refuse signatures from the future
        await self.delivery.start()

    async def stop(self, grace_s: float = 3.0) -> None:
        if self.delivery is not None:
            await self.delivery.close(grace_s)
        self.delivery = None

    def advance(self, seconds: float) -> None:
        self.ahead += seconds
        self.outbox.wake.set()

    async def publish(self, call: str, endpoint: str, *sequences: int) -> None:
        lease = await self.outbox.own_call(call, "test", b"")
        events = [
            Outgoing(endpoint, n, f"evt_{call}_{n}", "transcript.final", f'{{"n": {n}, "é": "ü"}}'.encode())
            for n in sequences
        ]
        await (self.delivery or self.outbox).publish(lease, events, {})

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(10):
            while not await reached():
                await asyncio.sleep(0.002)

    async def until_idle(self) -> None:
        """Wait until no lane is in work and the pump sleeps."""

        async def reached() -> bool:
            assert self.delivery is not None
            before = self.delivery._lanes or self.outbox.wake.is_set()
            await self.outbox.stats()  # answered after what the pump may have asked before
            return not (before or self.delivery._lanes or self.outbox.wake.is_set())

        await self.until(reached)

    async def failed(self, attempts: int) -> None:
        """Wait until some lane's head failed so often and was handed back."""

        async def reached() -> bool:
            return await self.outbox._writer.run(_most_attempts) >= attempts

        await self.until(reached)

    async def settled(self, pending: int = 0) -> None:
        """Wait until no more than `pending` events are left."""

        async def reached() -> bool:
            return (await self.outbox.stats()).pending <= pending

        await self.until(reached)


def _most_attempts(db: sqlite3.Connection) -> int:
    most: int = db.execute("select coalesce(max(attempts), 0) from lanes").fetchone()[0]
    return most


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    line = Line(tmp_path / "outbox")
    await line.outbox.open()
    yield line
    await line.stop()
    await line.outbox.close()
