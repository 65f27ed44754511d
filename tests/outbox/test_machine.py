"""The state machine against each kind of outbox."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from bridge.outbox.host import Host
from bridge.outbox.outbox import Outbox
from bridge.outbox.remote import remote_outbox
from bridge.outbox.sqlite import Sqlite
from tests.outbox.machine import Start, check

T = TypeVar("T")

EXAMPLES, STEPS = 60, 25
"""How far the state machine goes; `make chaos` goes further."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing: processes die here, machines do not."""


class SqliteEngine:
    """One process for both workers, as a file has one owner. It dies by going on with a copy of its files."""

    start: Start = "afresh"

    def __init__(self, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._directory = directory
        self._lives = 0
        self._clock: Callable[[], float] = float
        self._store: Sqlite | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def wipe(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._live_on(self._new_life())

    def outbox(self, worker: str) -> Outbox:
        assert worker in {"a", "b"}
        assert self._store is not None
        return self._store

    def restart(self, worker: str, *, crash: bool) -> None:
        assert worker in {"a", "b"}
        self._live_on(self._copy() if crash else self._life())

    def close(self) -> None:
        self._leave()
        self._runner.close()

    def _life(self) -> Path:
        return self._directory / str(self._lives)

    def _new_life(self) -> Path:
        self._lives += 1
        self._life().mkdir()
        return self._life()

    def _copy(self) -> Path:
        """What a kill would leave: whatever the writer is doing, the files as they are."""
        before, after = self._life(), self._new_life()
        while True:
            log = (before / "outbox.sqlite3-wal").read_bytes()[:32]
            for name in ("outbox.sqlite3", "outbox.sqlite3-wal"):
                shutil.copy(before / name, after / name)
            if (after / "outbox.sqlite3-wal").read_bytes()[:32] == log:  # else it was begun anew in between
                return after

    def _live_on(self, directory: Path) -> None:
        self._leave()
        self._store = Sqlite(directory, self._clock)
        self.run(self._store.open())

    def _leave(self) -> None:
        if self._store is not None:
            self.run(self._store.close())
            self._store = None


class RemoteEngine:
    """Each worker asks a host for the one file, over a socket of its own. It dies by losing the socket."""

    start: Start = "unnoticed"

    def __init__(self, directory: Path) -> None:
        self._runner = asyncio.Runner()
        self._directory = directory
        self._lives = 0
        self._store: Sqlite | None = None
        self._host: Host
        self._workers: dict[str, Outbox] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def wipe(self, clock: Callable[[], float]) -> None:
        self.run(self._end())
        self._lives += 1
        self._store = Sqlite(self._directory / str(self._lives), clock)
        self._host = Host(self._store)
        self.run(self._store.open())
        for worker in ("a", "b"):
            self.run(self._begin(worker))

    def outbox(self, worker: str) -> Outbox:
        return self._workers[worker]

    def restart(self, worker: str, *, crash: bool) -> None:
        self.run(self._leave(worker, crash=crash))
        self.run(self._begin(worker))

    def close(self) -> None:
        self.run(self._end())
        self._runner.close()

    async def _begin(self, worker: str) -> None:
        self._workers[worker] = remote_outbox(await self._host.connect())
        await self._workers[worker].open()

    async def _leave(self, worker: str, *, crash: bool = False) -> None:
        outbox = self._workers.pop(worker)
        if crash:
            cast("Any", outbox)._transport.abort()
        await outbox.close()
        while len(self._host._clients) > len(self._workers):
            await asyncio.sleep(0)

    async def _end(self) -> None:
        for worker in list(self._workers):
            await self._leave(worker)
        if self._store is not None:
            await self._store.close()
            self._store = None


@contextlib.contextmanager
def remote() -> Iterator[RemoteEngine]:
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as directory,
        contextlib.closing(RemoteEngine(Path(directory))) as engine,
    ):
        yield engine


@contextlib.contextmanager
def sqlite() -> Iterator[SqliteEngine]:
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as directory,
        contextlib.closing(SqliteEngine(Path(directory))) as engine,
    ):
        yield engine


def test_sqlite_does_what_the_model_does() -> None:
    with sqlite() as engine:
        check(engine, examples=EXAMPLES, steps=STEPS)


def test_a_host_and_its_workers_do_what_the_model_does() -> None:
    with remote() as engine:
        check(engine, examples=EXAMPLES, steps=STEPS)
