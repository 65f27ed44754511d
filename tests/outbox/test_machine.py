"""The state machine against each kind of outbox."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from bridge.outbox.outbox import Outbox
from bridge.outbox.sqlite import Sqlite
from tests.outbox.machine import check

T = TypeVar("T")

EXAMPLES, STEPS = 60, 25
"""How far the state machine goes; `make chaos` goes further."""

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where a sync costs nothing: processes die here, machines do not."""


class SqliteEngine:
    """One process for both workers, as a file has one owner. It dies by going on with a copy of its files."""

    alone = True

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
