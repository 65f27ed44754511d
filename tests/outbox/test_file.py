"""The outbox's file: who may open it, with which rights, and what is said when it cannot be opened."""

import os
import re
import sqlite3
import stat
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.outbox.file import VERSION, open_file, scrub
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.sqlite import Sqlite

FIRST_SCHEMA, SECOND_SCHEMA = (
    Path(__file__).with_name(f"sqlite_{n}.sql").read_text(encoding="utf-8") for n in (1, 2)
)


def test_directory_and_files_are_for_this_user_only(tmp_path: Path) -> None:
    directory = tmp_path / "not" / "there"
    file = open_file(directory)
    file.connection.execute("insert into endpoints values ('x', null)")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert set(modes) == {"outbox.sqlite3", "outbox.sqlite3-wal", "outbox.sqlite3-shm", "outbox.lock"}
    assert set(modes.values()) == {0o600}
    file.close()


def test_settings_are_the_durable_ones(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    settings = {
        name: file.connection.execute(f"pragma {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "user_version")
    }
    assert settings == {"journal_mode": "wal", "synchronous": 2, "user_version": VERSION}
    file.close()


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    with pytest.raises(OutboxDown, match=f"in use by another whisper-bridge .process {os.getpid()}"):
        open_file(tmp_path)
    file.close()
    open_file(tmp_path).close()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = "import sys, time, pathlib; from bridge.outbox.file import open_file\nfile = open_file(pathlib.Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(OutboxDown, match=f"process {child.pid}"):
            open_file(tmp_path)
        child.kill()
    open_file(tmp_path).close()


def test_a_path_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    for directory in (path, path / "below"):
        with pytest.raises(ConfigError, match=r"is a file\. Name a directory in \[outbox\] url"):
            open_file(directory)


@pytest.mark.parametrize("refused", ["outbox", "outbox.lock", "outbox.sqlite3"])
def test_a_directory_that_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    # Refused by hand, as the tests may run as root, whom nothing is refused.
    real_open, real_mkdir = os.open, Path.mkdir

    def refuse_open(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if Path(path).name == refused:
            raise PermissionError(13, "Permission denied", str(path))
        return real_open(path, flags, mode)

    def refuse_mkdir(path: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        if path.name == refused:
            raise PermissionError(13, "Permission denied", str(path))
        real_mkdir(path, mode, parents, exist_ok)

    monkeypatch.setattr(os, "open", refuse_open)
    monkeypatch.setattr(Path, "mkdir", refuse_mkdir)
    with pytest.raises(ConfigError, match=r"outbox.*: Permission denied\."):
        open_file(tmp_path / "outbox")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite3").write_bytes(b"not a database, but long enough to be looked at" * 100)
    with pytest.raises(OutboxDown, match=r"is damaged \(file is not a database\): restore it"):
        open_file(tmp_path)


def test_a_damaged_page(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.connection.executemany(
        """insert into events (lane, position, sequence, event_id, type, body, sha256, created_at)
           values (?, 1, 1, 'e', 't', ?, x'', 0)""",
        [(f"lane{n}", b"x" * 1000) for n in range(100)],
    )
    file.close()
    path = tmp_path / "outbox.sqlite3"
    damaged = bytearray(path.read_bytes())
    damaged[40_000:60_000] = b"\xff" * 20_000
    path.write_bytes(damaged)
    with pytest.raises(OutboxDown, match="is damaged"):
        open_file(tmp_path)


def test_a_newer_schema(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.connection.execute(f"pragma user_version = {VERSION + 1}")
    file.close()
    with pytest.raises(OutboxDown, match=f"newer whisper-bridge .schema {VERSION + 1}"):
        open_file(tmp_path)


def write_old_file(path: Path) -> None:
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(FIRST_SCHEMA + "pragma user_version = 1;")
    old.execute("insert into calls values ('CA1', 'me', 3, 4, 1, x'6d', 90.5)")
    old.execute("insert into watermarks values ('CA1', 'inbound', 8000)")
    old.execute("insert into spent values ('nonce', 99.0)")
    old.execute("insert into endpoints values ('https://a.example/', 'status 410')")
    old.execute(
        "insert into lanes values ('tag/CA1', 'https://a.example/', 'CA1', 3, 4, 2, 80.5, 95.5, 'me', 30.0, 7)"
    )
    old.executemany(
        "insert into events values ('tag/CA1', ?, ?, 'transcript.final', ?, ?, ?, ?, ?, ?, ?)",
        [
            (2, "evt_2", b"two", "dead", 71.5, None, 5, 500, "status 500"),
            (1, "evt_1", b"one", "done", 70.5, 75.5, 1, None, None),
            (3, "evt_3", b"three", "pending", 72.5, None, 2, None, "timeout"),
        ],
    )
    old.close()


def test_a_file_of_the_first_schema_is_upgraded_with_all_that_is_in_it(tmp_path: Path) -> None:
    write_old_file(tmp_path / "outbox.sqlite3")
    (tmp_path / "new").mkdir()
    file, new = open_file(tmp_path), open_file(tmp_path / "new")
    for table, rows in {
        "calls": [("CA1", "me", 3, 4, 1, 0, 0, b"m", 90.5, 90.5, "", "")],
        "watermarks": [("CA1", "inbound", 8000)],
        "spent": [("nonce", 99.0)],
        "endpoints": [("https://a.example/", "status 410")],
        "lanes": [("tag/CA1", "https://a.example/", "CA1", 3, 4, 2, 80.5, 95.5, "me", 30.0, 7, 1)],
        "events": [
            (
                n,
                "tag/CA1",
                sequence,
                sequence,
                f"evt_{sequence}",
                "transcript.final",
                body,
                sha256(body).digest(),
                *rest,
            )
            for n, sequence, body, *rest in (
                (1, 2, b"two", "dead", 71.5, None, 5, 500, "status 500"),
                (2, 1, b"one", "done", 70.5, 75.5, 1, None, None),
                (3, 3, b"three", "pending", 72.5, None, 2, None, "timeout"),
            )
        ],
    }.items():
        assert file.connection.execute(f"select * from {table}").fetchall() == rows
    assert schema(file.connection) == schema(new.connection)
    assert file.connection.execute("pragma user_version").fetchone() == (VERSION,)
    file.close()
    new.close()
    open_file(tmp_path).close()


def schema(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """What is in a file, without comments and blanks."""
    found = connection.execute("select name, sql from sqlite_master where sql is not null order by name")
    return [(name, re.sub(r"--.*|\s", "", sql)) for name, sql in found.fetchall()]


def test_a_file_of_the_second_schema_is_upgraded_with_all_that_is_in_it(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "outbox.sqlite3", isolation_level=None)
    old.executescript(SECOND_SCHEMA + "pragma user_version = 2;")
    rows: dict[str, tuple[Any, ...]] = {
        "calls": ("CA1", "me", 3, 4, 0, 0, 1, b"m", 80.5, 90.5),
        "lines": ("CA1", 1, "inbound", 1000, 1500, "one"),
        "watermarks": ("CA1", "inbound", 8000),
        "spent": ("nonce", 99.0),
        "endpoints": ("https://a.example/", "status 410"),
        "events": (
            7,
            "tag/CA1",
            3,
            3,
            "evt_3",
            "t",
            b"3",
            b"hash",
            "pending",
            72.5,
            None,
            2,
            None,
            "timeout",
        ),
    }
    for table, row in rows.items():
        old.execute(f"insert into {table} values ({', '.join('?' * len(row))})", row)
    lane = ("tag/CA1", "https://a.example/", "CA1", 3, 4, 2, 80.5, 95.5, "me", 30.0, 7)
    old.execute("insert into lanes values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", lane)
    old.close()
    (tmp_path / "new").mkdir()
    file, new = open_file(tmp_path), open_file(tmp_path / "new")
    rows |= {"calls": (*rows["calls"], "", ""), "lanes": (*lane, 1)}
    for table, row in rows.items():
        assert file.connection.execute(f"select * from {table}").fetchall() == [row]
    assert schema(file.connection) == schema(new.connection)
    assert file.connection.execute("pragma user_version").fetchone() == (VERSION,)
    file.close()
    new.close()


async def test_calls_of_the_second_schema_have_nobody_at_work_on_them(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "outbox.sqlite3", isolation_level=None)
    old.executescript(SECOND_SCHEMA + "pragma user_version = 2;")
    for sid, ended in (("CA1", 0), ("CA2", 1)):
        old.execute("insert into calls values (?, 'me', 3, 4, ?, 0, 0, x'', 80.5, 90.5)", (sid, ended))
    old.close()
    outbox = Sqlite(tmp_path)
    await outbox.open()
    assert [(call.call_sid, call.owner) for call in await outbox.orphans(10, 50)] == [("CA1", "me")]
    assert (await outbox.own_call("CA1", "me", b"", node="n1", only_from="me")).epoch == 4
    assert await outbox.orphans(10, 50) == []
    await outbox.close()


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite3"
    write_old_file(path)
    with sqlite3.connect(path) as old:
        old.execute("create table events_1 (in_the_way)")
    old.close()
    with pytest.raises(OutboxDown, match="events_1"):
        open_file(tmp_path)
    old = sqlite3.connect(path)
    assert old.execute("pragma user_version").fetchone() == (1,)
    assert old.execute("select count(*) from events").fetchone() == (3,)
    old.close()


def test_scrubbed_it_has_nothing_left_of_what_was_deleted(tmp_path: Path) -> None:
    file = open_file(tmp_path)
    file.connection.execute("insert into endpoints values ('https://deleted.example/', null)")
    file.connection.execute("delete from endpoints")
    scrub(file.connection)
    on_disk = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"deleted" not in on_disk
    assert (tmp_path / "outbox.sqlite3-wal").stat().st_size == 0
    reader = sqlite3.connect(tmp_path / "outbox.sqlite3", isolation_level=None)
    reader.execute("begin")
    reader.execute("select * from endpoints").fetchall()
    file.connection.execute("pragma busy_timeout = 0")
    with pytest.raises(sqlite3.OperationalError, match="in use"):
        scrub(file.connection)
    reader.close()
    file.close()


def test_an_empty_file_is_a_new_outbox(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite3").touch()
    file = open_file(tmp_path)
    assert file.connection.execute("select count(*) from events").fetchone() == (0,)
    file.close()


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "outbox.sqlite3") as other:
        other.execute("create table calls (x)")
    other.close()
    with pytest.raises(OutboxDown, match=r"cannot be opened: table calls already exists\."):
        open_file(tmp_path)


def test_an_old_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(OutboxDown, match=r"SQLite 3\.35 or newer"):
        open_file(tmp_path)
