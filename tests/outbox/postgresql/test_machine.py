"""The state machine of every outbox against two processes' worth of stores on one database."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from bridge.outbox.outbox import Outbox
from bridge.outbox.postgresql.postgres import Postgres
from tests.doubles.postgres import PostgresServer
from tests.outbox.machine import Start, check

T = TypeVar("T")

EXAMPLES, STEPS = 15, 30

EMPTY = """do $$ begin execute (
  select 'truncate ' || string_agg(format('whisper_bridge.%I', tablename), ', ') || ' restart identity'
  from pg_tables where schemaname = 'whisper_bridge' and tablename <> 'version'); end $$"""


class PostgresEngine:
    """Each worker is a store of its own. It dies by losing its connections."""

    start: Start = "shared"

    def __init__(self, server: PostgresServer) -> None:
        self._runner = asyncio.Runner()
        self._server = server
        self._clock: Callable[[], float] = float
        self._stores: dict[str, Postgres] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def wipe(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        for worker in ("a", "b"):
            if worker not in self._stores:
                self._begin(worker)
        self.run(self._server.query(EMPTY))

    def outbox(self, worker: str) -> Outbox:
        return self._stores[worker]

    def restart(self, worker: str, *, crash: bool) -> None:
        store = self._stores.pop(worker)
        if crash:
            store._pool._pool.terminate()
        self.run(store.close())
        self._begin(worker)

    def close(self) -> None:
        for store in self._stores.values():
            self.run(store.close())
        self._runner.close()

    def _now(self) -> float:
        return self._clock()

    def _begin(self, worker: str) -> None:
        store = Postgres(self._server.url, self._now)
        self.run(store.open())
        self._stores[worker] = store


@contextlib.contextmanager
def postgres(server: PostgresServer) -> Iterator[PostgresEngine]:
    with contextlib.closing(PostgresEngine(server)) as engine:
        yield engine


@pytest.mark.usefixtures("postgres_url")
def test_postgresql_does_what_the_model_does(postgres_server: PostgresServer) -> None:
    with postgres(postgres_server) as engine:
        check(engine, examples=EXAMPLES, steps=STEPS)
