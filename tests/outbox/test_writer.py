"""The writer thread: one commit for many, nobody harmed by a neighbour, clear words when the disk is full."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from bridge.outbox import writer as writer_module
from bridge.outbox.file import open_file, scrub
from bridge.outbox.outbox import OutboxDown, OutboxFull
from bridge.outbox.writer import Writer, commit


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    started = Writer()
    await started.start(partial(open_file, tmp_path))
    yield started
    await started.close()


def put(name: str, db: sqlite3.Connection) -> str:
    db.execute("insert into endpoints values (?, null)", (name,))
    return name


def names(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("select endpoint from endpoints order by endpoint")]


def fill_the_disk(db: sqlite3.Connection) -> None:
    (pages,) = db.execute("pragma page_count").fetchone()
    db.execute(f"pragma max_page_count = {pages}")


def put_much(db: sqlite3.Connection) -> None:
    db.execute("insert into endpoints values (?, null)", ("x" * 100_000,))


def fail(db: sqlite3.Connection) -> None:
    put("half", db)
    raise KeyError("mine alone")


async def test_a_failed_operation_undoes_itself_and_nothing_else(writer: Writer) -> None:
    outcomes = await asyncio.gather(
        writer.run(partial(put, "a")), writer.run(fail), writer.run(partial(put, "b")), return_exceptions=True
    )
    assert outcomes[0] == "a"
    assert isinstance(outcomes[1], KeyError)
    assert outcomes[2] == "b"
    assert await writer.run(names) == ["a", "b"]


async def test_a_wrong_statement_is_told_as_an_outbox_that_is_down(writer: Writer) -> None:
    with pytest.raises(OutboxDown, match="no such table: nowhere"):
        await writer.run(lambda db: db.execute("select * from nowhere"))


async def test_a_full_disk_is_told_as_such_and_over_when_there_is_room_again(writer: Writer) -> None:
    await writer.run(fill_the_disk)
    outcomes = await asyncio.gather(
        writer.run(partial(put, "a")),
        writer.run(put_much),
        writer.run(partial(put, "b")),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], OutboxFull)
    assert "disk is full" in str(outcomes[1])
    assert (outcomes[0], outcomes[2]) == ("a", "b")
    await writer.run(lambda db: db.execute("pragma max_page_count = 1000000"))
    await writer.run(put_much)
    assert len(await writer.run(names)) == 3


def test_a_commit_that_fails_is_done_again_one_by_one(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    runs = []

    def roll_back(db: sqlite3.Connection) -> None:
        runs.append("rolled back")
        db.execute("rollback")  # as SQLite does by itself when the disk fails
        raise sqlite3.OperationalError("disk I/O error")

    outcomes = commit(file.connection, [partial(put, "a"), roll_back, partial(put, "b")])
    assert outcomes[0] == "a"
    assert isinstance(outcomes[1], sqlite3.OperationalError)
    assert outcomes[2] == "b"
    assert names(file.connection) == ["a", "b"]
    assert len(runs) == 2
    file.close()


def test_operations_that_refuse_leave_the_others_together(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    statements: list[str] = []
    file.connection.set_trace_callback(statements.append)
    outcomes = commit(file.connection, [partial(put, "a"), fail, partial(put, "b"), fail, partial(put, "c")])
    file.connection.set_trace_callback(None)
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["a", "b", "c"]
    assert [type(outcome) for outcome in outcomes].count(KeyError) == 2
    assert names(file.connection) == ["a", "b", "c"]
    assert sum(statement.lower() == "commit" for statement in statements) == 1
    assert commit(file.connection, [fail, fail])[1].args == ("mine alone",)
    assert not file.connection.in_transaction
    file.close()


def test_what_was_refused_because_of_something_undone_is_asked_again(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    runs = []

    def fails_at_last(db: sqlite3.Connection) -> None:
        put("first", db)
        runs.append("first")
        if len(runs) > 1:
            raise sqlite3.OperationalError("disk I/O error")

    def only_without(db: sqlite3.Connection) -> str:
        if "first" in names(db):
            raise KeyError("first")
        return put("second", db)

    outcomes = commit(file.connection, [fails_at_last, only_without])
    assert isinstance(outcomes[0], sqlite3.OperationalError)
    assert outcomes[1] == "second"
    assert names(file.connection) == ["second"]
    file.close()


async def test_operations_share_commits(writer: Writer) -> None:
    statements: list[str] = []
    await writer.run(lambda db: db.set_trace_callback(statements.append))
    await asyncio.gather(*(writer.run(partial(put, f"{n:03}")) for n in range(200)))
    await writer.run(lambda db: db.set_trace_callback(None))
    assert len(await writer.run(names)) == 200
    assert sum(statement.lower() == "commit" for statement in statements) < 20


async def test_only_leases_may_be_committed_without_waiting_for_the_disk(writer: Writer) -> None:
    def level(db: sqlite3.Connection) -> int:
        found: int = db.execute("pragma synchronous").fetchone()[0]
        return found

    assert await writer.run(level, durable=False) == 1
    assert await writer.run(level) == 2
    both = await asyncio.gather(
        *(writer.run(level, durable=False) for _ in range(3)), writer.run(level), return_exceptions=True
    )
    assert both[-1] == 2


async def test_the_file_is_scrubbed_after_the_commit_of_who_asks_for_it(
    tmp_path: Path, writer: Writer
) -> None:
    await writer.run(partial(put, "https://deleted.example/"))
    both = await asyncio.gather(
        writer.run(partial(put, "kept")),
        writer.run(
            lambda db: db.execute("delete from endpoints where endpoint like '%deleted%'").rowcount,
            afterwards=scrub,
        ),
    )
    assert list(both) == ["kept", 1]
    for name in ("outbox.sqlite3", "outbox.sqlite3-wal"):
        assert b"deleted" not in (tmp_path / name).read_bytes()
    assert await writer.run(names) == ["kept"]


async def test_who_asks_for_something_afterwards_is_told_that_it_failed_and_nobody_else(
    writer: Writer,
) -> None:
    def refuse(_: sqlite3.Connection) -> None:
        raise sqlite3.OperationalError("no temporary directory")

    outcomes = await asyncio.gather(
        writer.run(partial(put, "a")),
        writer.run(partial(put, "b"), afterwards=refuse),
        writer.run(fail, afterwards=refuse),
        return_exceptions=True,
    )
    assert outcomes[0] == "a"
    assert isinstance(outcomes[1], OutboxDown)
    assert "no temporary directory" in str(outcomes[1])
    assert isinstance(outcomes[2], KeyError)
    assert await writer.run(names) == ["a", "b"], "what it did is done"


async def test_too_many_waiting_operations_are_refused(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "WAITING", 3)
    outcomes = await asyncio.gather(
        *(writer.run(partial(put, str(n))) for n in range(5)), return_exceptions=True
    )
    assert outcomes[:3] == ["0", "1", "2"]
    assert all(isinstance(outcome, OutboxDown) for outcome in outcomes[3:])
    assert await writer.run(partial(put, "later")) == "later"


async def test_close_commits_what_waits(tmp_path: Path) -> None:
    writer = Writer()
    await writer.start(partial(open_file, tmp_path))
    waiting = [asyncio.create_task(writer.run(partial(put, str(n)))) for n in range(100)]
    await asyncio.sleep(0)
    await writer.close()
    assert [await task for task in waiting] == [str(n) for n in range(100)]
    with pytest.raises(OutboxDown, match="not open"):
        await writer.run(names)


async def test_what_goes_wrong_at_the_start_is_raised_there(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite3").write_bytes(b"x" * 5000)
    writer = Writer()
    with pytest.raises(OutboxDown, match="damaged"):
        await writer.start(partial(open_file, tmp_path))
    await writer.close()
    (tmp_path / "outbox.sqlite3").unlink()
    await writer.start(partial(open_file, tmp_path))
    assert await writer.run(names) == []
    await writer.close()
