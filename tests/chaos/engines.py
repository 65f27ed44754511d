"""The two outboxes that a scenario of deliveries runs on."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal

from structlog.testing import capture_logs

from bridge.outbox.outbox import Outbox
from bridge.outbox.sqlite import Sqlite
from tests.chaos.scenario import Lacking
from tests.chaos.workers import CRASHES
from tests.doubles import postgres

Engine = Literal["sqlite", "postgresql"]
ENGINES: Final[tuple[Engine, ...]] = ("sqlite", "postgresql")


@contextlib.asynccontextmanager
async def opened(engine: Engine, directory: Path) -> AsyncIterator[Outbox]:
    """An empty outbox; PostgreSQL on a server of its own, which waits for the disk. Raises `Lacking`.

    Nothing is logged meanwhile. An `AssertionError` in the end if the log would have had a crash.
    """
    with capture_logs() as logs:
        async with _opened(engine, directory) as outbox:
            yield outbox
    crashes = [line["event"] for line in logs if line["event"] in CRASHES]
    assert not crashes, f"the log has {crashes[0]}"


@contextlib.asynccontextmanager
async def opened_server(*, fsync: bool = True) -> AsyncIterator[postgres.PostgresServer]:
    """A PostgreSQL of its own. Raises `Lacking`."""
    if not postgres.installed():
        raise Lacking(postgres.MISSING)
    async with postgres.PostgresServer(fsync=fsync) as server:
        yield server


@contextlib.asynccontextmanager
async def _opened(engine: Engine, directory: Path) -> AsyncIterator[Outbox]:
    async with contextlib.AsyncExitStack() as stack:
        outbox: Outbox
        if engine == "sqlite":
            outbox = Sqlite(directory)
        else:
            from bridge.outbox.postgresql.postgres import Postgres  # noqa: PLC0415 - its driver is an extra

            server = await stack.enter_async_context(opened_server())
            outbox = Postgres(server.url)
        await outbox.open()
        try:
            yield outbox
        finally:
            await outbox.close()
