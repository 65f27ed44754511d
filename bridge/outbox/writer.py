"""The one thread that touches the outbox's file: a queue in front, many operations per commit."""

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from bridge.outbox.file import OutboxFile
from bridge.outbox.outbox import OutboxDown, OutboxFull

T = TypeVar("T")

BATCH = 64
"""Operations that share one commit, and so one wait for the disk."""

WAITING = 4096
"""Operations that may wait for the disk; beyond it, callers are told that the outbox is down."""


@dataclass(slots=True)
class _Job:
    operation: Callable[[sqlite3.Connection], Any]
    committed: Callable[[], None] | None
    durable: bool
    afterwards: Callable[[sqlite3.Connection], None] | None
    done: asyncio.Future[Any]


class Writer:
    """Runs operations on the file in its own thread, and answers each one once it is committed.

    An operation gets the connection inside a transaction. What it raises is its caller's alone: then
    the others of the batch are run once more.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    async def start(self, open_file: Callable[[], OutboxFile]) -> None:
        """Open the file in the new thread. Raises what `open_file` raises; may be tried again then."""
        self._loop = asyncio.get_running_loop()
        self._jobs = queue.SimpleQueue()
        opened: asyncio.Future[Any] = self._loop.create_future()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(
            target=self._work, args=(open_file, opened), name="outbox", daemon=True
        )
        self._thread.start()
        try:
            await opened
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Commit what waits, then close the file. May be called twice."""
        if self._thread is None or self._ended is None:
            return
        self._jobs.put(None)
        thread, self._thread = self._thread, None
        await self._ended
        thread.join()

    async def run(
        self,
        operation: Callable[[sqlite3.Connection], T],
        *,
        committed: Callable[[], None] | None = None,
        durable: bool = True,
        afterwards: Callable[[sqlite3.Connection], None] | None = None,
    ) -> T:
        """Run `operation`; return its result once it is committed, and `durable`: even if the power fails.

        `afterwards` is run before that, when the transaction is over. `committed` is called then, also when
        the caller has given up by that time. Raises what the
        operation raises, `OutboxFull` when the disk is, `OutboxDown` for every other trouble with the file.
        """
        if self._thread is None or self._loop is None:
            raise OutboxDown("The outbox is not open.")
        if self._waiting >= WAITING:
            raise OutboxDown(f"The outbox's disk does not keep up: {WAITING} writes wait for it.")
        job = _Job(operation, committed, durable, afterwards, self._loop.create_future())
        self._waiting += 1
        self._jobs.put(job)
        result: T = await job.done
        return result

    def _work(self, open_file: Callable[[], OutboxFile], opened: asyncio.Future[Any]) -> None:
        try:
            file = open_file()
        except Exception as error:  # noqa: BLE001 - handed to the caller of start()
            self._tell(_resolve, opened, error)
        else:
            self._tell(_resolve, opened, None)
            with contextlib.closing(file):
                while batch := self._take():
                    self._tell(self._settle, batch, self._commit(file.connection, batch))
        finally:
            self._tell(_resolve, self._ended, None)

    @staticmethod
    def _commit(connection: sqlite3.Connection, batch: list[_Job]) -> list[Any]:
        try:
            # Without FULL the commit does not wait for the disk; the next FULL one covers it too.
            full = any(job.durable for job in batch)
            connection.execute(f"pragma synchronous = {'full' if full else 'normal'}")
            outcomes = commit(connection, [job.operation for job in batch])
        except sqlite3.Error as error:  # not even the rollback worked
            return [error] * len(batch)
        for n, job in enumerate(batch):
            if job.afterwards is not None and not isinstance(outcomes[n], Exception):
                try:
                    job.afterwards(connection)
                except sqlite3.Error as error:
                    outcomes[n] = error
        return outcomes

    def _take(self) -> list[_Job]:
        """Wait for work; an empty list is the end."""
        batch: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            batch.append(job)
            if len(batch) == BATCH or self._jobs.empty():
                return batch
            job = self._jobs.get()
        if batch:
            self._jobs.put(None)  # the end, found behind work: do the work, then find it again
        return batch

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        assert self._loop is not None  # noqa: S101 - set before the thread starts
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            return  # the loop is gone, and with it everybody who waited

    def _settle(self, batch: list[_Job], outcomes: list[Any]) -> None:
        self._waiting -= len(batch)
        for job, outcome in zip(batch, outcomes, strict=True):
            if job.committed is not None and not isinstance(outcome, Exception):
                job.committed()
            _resolve(job.done, outcome)


def _resolve(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return  # the caller has given up
    if isinstance(outcome, sqlite3.Error):
        future.set_exception(_translated(outcome))
    elif isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def commit(
    connection: sqlite3.Connection, operations: list[Callable[[sqlite3.Connection], Any]]
) -> list[Any]:
    """Run the operations in one transaction; the result or exception of each.

    One that refuses what it is asked is left out, and the others are run again: that is rare, and savepoints
    would cost every operation two statements. If the file is in trouble, each is run in a transaction of its own.
    """
    outcomes: list[Any] = [None] * len(operations)
    left, running = list(range(len(operations))), 0
    while left:
        try:
            connection.execute("begin immediate")
            for running in left:
                outcomes[running] = operations[running](connection)
            connection.execute("commit")
        except Exception as error:  # noqa: BLE001 - handed to the caller of the operation
            if connection.in_transaction:  # a full or failing disk makes SQLite roll back by itself
                connection.execute("rollback")
            if isinstance(error, sqlite3.Error) and len(operations) > 1:
                # Others may have been refused because of what is undone now: nothing of it counts.
                return [commit(connection, [operation])[0] for operation in operations]
            outcomes[running] = error
            left.remove(running)
        else:
            break
    return outcomes


def _translated(error: sqlite3.Error) -> OutboxDown:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        translated: OutboxDown = OutboxFull("The outbox's disk is full: make room on it.")
    else:
        translated = OutboxDown(f"The outbox's file cannot be used: {error}.")
    translated.__cause__ = error
    return translated
