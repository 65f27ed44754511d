"""Stores on one database, and a pair of servers that commit together."""

from collections.abc import AsyncIterator

import pytest

from bridge.outbox.postgresql.postgres import Postgres
from tests.doubles.postgres import PostgresServer


@pytest.fixture
async def stores(postgres_url: str) -> AsyncIterator[tuple[Postgres, Postgres]]:
    """Two, open, as two processes have them."""
    one, two = Postgres(postgres_url), Postgres(postgres_url)
    await one.open()
    await two.open()
    yield one, two
    await one.close()
    await two.close()


@pytest.fixture
async def own_server(postgres_programs: None) -> AsyncIterator[PostgresServer]:  # noqa: ARG001 - asked first
    """One that a test may stop, freeze or kill."""
    async with PostgresServer(fsync=False) as server:
        yield server
