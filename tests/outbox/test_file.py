"""The outbox's file: who may open it, with which rights, and what is said when it cannot be opened."""

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.outbox.file import VERSION, open_file
from bridge.outbox.outbox import OutboxDown


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
        "insert into events (lane, sequence, event_id, type, body, created_at) values (?, 1, 'e', 't', ?, 0)",
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
