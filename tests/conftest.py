"""Servers that tests share."""

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from tests.doubles import postgres
from tests.doubles.postgres import PostgresServer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say once, and not for each test, that there is no PostgreSQL."""
    report = yield
    if isinstance(report.longrepr, tuple) and report.longrepr[2].endswith(postgres.MISSING):
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


@pytest.fixture(scope="session")
def postgres_programs() -> None:
    """Skips tests that start a PostgreSQL of their own where there is none."""
    if not postgres.installed():
        pytest.skip(postgres.MISSING)


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: None) -> Iterator[PostgresServer]:  # noqa: ARG001 - asked first
    """One PostgreSQL for all tests, started when the first one asks for it. Leave it running, as it was."""
    server = PostgresServer(fsync=False)
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.remove())


@pytest.fixture
async def postgres_url(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """The URL of that server; nothing of this test is left there."""
    yield postgres_server.url
    await postgres_server.query(
        """select pg_terminate_backend(pid) from pg_stat_activity
           where backend_type = 'client backend' and pid <> pg_backend_pid()"""
    )
    await postgres_server.query("drop schema if exists whisper_bridge cascade")
