"""What a store is measured on: a server or a directory of its own, filled quickly, and asked what it has cost."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, Self

import asyncpg

from tests.benchmarks.store.load import opened
from tests.benchmarks.store.rows import COLUMNS, DEAD, ENDPOINTS, Rows
from tests.doubles.postgres import START_S, PostgresServer

SETTINGS: Final = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
"""Of a small server that does nothing else. The rest is as it comes: commits wait for the disk."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What the processes of a store have used up to some moment; nothing, if it has none."""

    cpu_s: float = 0.0
    log_bytes: int = 0
    """Of its write-ahead log."""
    transactions: int = 0
    """That changed something."""
    page_images: int = 0
    """Pages in it that were written whole, as it was their first change since a checkpoint."""

    def since(self, before: "Spent") -> "Spent":
        """What was used after an earlier moment."""
        return Spent(
            self.cpu_s - before.cpu_s,
            self.log_bytes - before.log_bytes,
            self.transactions - before.transactions,
            self.page_images - before.page_images,
        )


class Bed(Protocol):
    """One store with its tables, as `async with`."""

    store: str
    """Its URL or directory."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def fill(self, rows: Rows) -> None:
        """Write rows, while no bridge is at work."""

    async def settle(self) -> None:
        """Tidy up after a lot of writing, as happens by itself in time."""

    async def spent(self) -> Spent:
        """What it has used."""

    async def sizes(self) -> Mapping[str, int]:
        """Bytes of each table that is filled, its indexes and all."""


class PostgresBed:
    """A PostgreSQL server in a temporary directory."""

    def __init__(self) -> None:
        self._server = PostgresServer()
        self.store = self._server.url
        self._connection: Any

    async def __aenter__(self) -> Self:
        await self._server.start()
        try:
            for setting, value in SETTINGS.items():
                await self._server.query(f"alter system set {setting} = '{value}'")
            await self._server.stop()
            await self._server.start()
            async with opened(self.store):
                pass  # its tables are there now
            self._connection = await asyncpg.connect(self.store, command_timeout=START_S)
            await self._connection.executemany(
                "insert into whisper_bridge.endpoints values ($1)", [(each,) for each in (*ENDPOINTS, DEAD)]
            )
        except BaseException:
            await self._server.remove()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._connection.terminate()
        await self._server.remove()

    async def fill(self, rows: Rows) -> None:
        for table, records in rows.items():
            await self._connection.copy_records_to_table(
                table, schema_name="whisper_bridge", columns=COLUMNS[table], records=records
            )

    async def settle(self) -> None:
        await self._connection.execute("vacuum analyze")
        await self._connection.execute("checkpoint")

    async def spent(self) -> Spent:
        postmaster = self._server.pid
        assert postmaster is not None
        log_bytes, page_images, transactions = await self._connection.fetchrow(
            "select wal_bytes::bigint, wal_fpi, txid_snapshot_xmax(txid_current_snapshot()) from pg_stat_wal"
        )
        return Spent(_family_cpu_s(postmaster), log_bytes, transactions, page_images)

    async def sizes(self) -> Mapping[str, int]:
        rows = await self._connection.fetch(
            """select relname, pg_total_relation_size(oid) from pg_class
               where relnamespace = 'whisper_bridge'::regnamespace and relname = any($1::text[])""",
            [*COLUMNS, "lines"],
        )
        return dict(rows)


class SqliteBed:
    """A SQLite outbox in a temporary directory."""

    def __init__(self) -> None:
        self.store = tempfile.mkdtemp(prefix="whisper-bridge-sqlite-")

    async def __aenter__(self) -> Self:
        async with opened(self.store):
            pass  # its tables are there now
        with self._connected() as connection:
            connection.executemany(
                "insert into endpoints (endpoint) values (?)", [(each,) for each in (*ENDPOINTS, DEAD)]
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        shutil.rmtree(self.store)

    async def fill(self, rows: Rows) -> None:
        with self._connected() as connection:
            connection.execute("begin")
            for table, records in rows.items():
                columns = COLUMNS[table]
                connection.executemany(
                    f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})",
                    records,
                )
            connection.execute("commit")

    async def settle(self) -> None:
        with self._connected() as connection:
            connection.execute("pragma wal_checkpoint(truncate)")

    async def spent(self) -> Spent:
        return Spent()

    async def sizes(self) -> Mapping[str, int]:
        return {"all": self._file.stat().st_size}

    @property
    def _file(self) -> Path:
        return next(Path(self.store).glob("*.sqlite3"))

    def _connected(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._file, isolation_level=None))


def _family_cpu_s(parent: int) -> float:
    """Processor time of a process, of its children, and of those that ended."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    cpu_s = 0.0
    for pid in pids:
        with suppress(OSError):  # it has ended since
            told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            if pid == parent:
                cpu_s += sum(map(int, told[13:15])) / os.sysconf("SC_CLK_TCK")
            if parent in (pid, int(told[1])):
                cpu_s += time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3) of a pid
    return cpu_s
