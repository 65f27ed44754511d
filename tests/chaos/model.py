"""Both outboxes, and one that is asked through a host, do what one model does, over random histories of two workers that crash, are late and fence each other."""

import asyncio
from pathlib import Path

from tests.chaos.engines import opened_server
from tests.outbox.machine import check
from tests.outbox.postgresql.test_machine import postgres
from tests.outbox.test_machine import remote, sqlite


async def run(_directory: Path, *, examples: int = 300, shared: int = 60, steps: int = 50) -> str:
    """Histories of so many steps each; `shared` of them on PostgreSQL, where a step takes ten times as long."""

    def on_sqlite() -> None:
        with sqlite() as engine:
            check(engine, examples=examples, steps=steps)
        with remote() as engine:
            check(engine, examples=examples, steps=steps)

    await asyncio.to_thread(on_sqlite)
    async with opened_server(fsync=False) as server:

        def on_postgresql() -> None:
            with postgres(server) as engine:
                check(engine, examples=shared, steps=steps)

        await asyncio.to_thread(on_postgresql)
    return f"{examples} histories of {steps} steps on SQLite, as many through a host of it, {shared} on PostgreSQL"
