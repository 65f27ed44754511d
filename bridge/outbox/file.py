"""The outbox's file: its directory, its lock, its SQLite settings and the version of its schema."""

import fcntl
import os
import re
import sqlite3
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from bridge.errors import ConfigError
from bridge.outbox.outbox import OutboxDown, OutboxHeld

VERSION = 3
"""Of the schema, in SQLite's `user_version`."""

SCHEMA = files("bridge.outbox").joinpath("sqlite.sql").read_text(encoding="utf-8")

FROM_1 = f"""
alter table calls rename to calls_1;
alter table watermarks rename to watermarks_1;
alter table spent rename to spent_1;
alter table endpoints rename to endpoints_1;
alter table lanes rename to lanes_1;
alter table events rename to events_1;
drop index lanes_due;
drop index lanes_leased;
drop index events_dead;
{SCHEMA}
insert into calls (call_sid, owner, epoch, next_sequence, ended, meta, created_at, seen_at)
  select call_sid, owner, epoch, next_sequence, ended, meta, seen_at, seen_at from calls_1;
insert into watermarks select * from watermarks_1;
insert into spent select * from spent_1;
insert into endpoints select * from endpoints_1;
insert into lanes select * from lanes_1;
insert into events (lane, position, sequence, event_id, type, body, sha256, state, created_at,
                    delivered_at, tries, last_status, last_error)
  select lane, sequence, sequence, event_id, type, body, sha256(body), state, created_at,
         delivered_at, tries, last_status, last_error from events_1 order by rowid;
drop table calls_1;
drop table watermarks_1;
drop table spent_1;
drop table endpoints_1;
drop table lanes_1;
drop table events_1;
"""  # noqa: S608 - constants
"""From the first schema to this one. It did not know when a call began: when it was last seen is the nearest."""

FROM_2 = f"""
alter table calls add column node text not null default '';
alter table calls add column heir text not null default '';
{"".join(re.findall(r"^create (?:index calls_open|table nodes|table attachments) .*?;$", SCHEMA, re.MULTILINE | re.DOTALL))}
"""
"""From the second. Its calls have no node: the process that had them is gone, as its successor opens the file."""

SETTINGS = (
    "pragma busy_timeout = 5000",
    "pragma journal_mode = wal",
    "pragma synchronous = full",  # NORMAL would lose acknowledged events when the power fails
    "pragma wal_autocheckpoint = 1000",
    "pragma journal_size_limit = 67108864",
    "pragma trusted_schema = off",
    "pragma secure_delete = on",  # what is erased leaves no trace in the file
)


@dataclass(frozen=True, slots=True)
class OutboxFile:
    """An open file and the lock that keeps it ours. Use and close it in the thread that opened it."""

    connection: sqlite3.Connection
    lock: int

    def close(self) -> None:
        """Write the log back into the file, and give the lock up."""
        self.connection.close()
        os.close(self.lock)


def open_file(directory: Path) -> OutboxFile:
    """Open outbox.sqlite3 in `directory`, created if need be, for this process alone.

    Raises `ConfigError` for a directory that cannot be used, and `OutboxDown` for a file that another
    process holds, that is damaged, or that a newer version wrote.
    """
    _make_directory(directory)
    path = directory / "outbox.sqlite3"
    lock = _lock(path.with_suffix(".lock"))
    try:
        return OutboxFile(_connect(path), lock)
    except BaseException:
        os.close(lock)
        raise


def scrub(connection: sqlite3.Connection) -> None:
    """Leave no trace of what was deleted, outside of a transaction; some 6 ms for each MB of the file.

    SQLite's secure_delete overwrites what it deletes, but not the copies that its pages keep of rows
    that were moved for balance: only a file that is written anew is free of them.
    """
    connection.execute("vacuum")
    empty_log(connection)


def empty_log(connection: sqlite3.Connection) -> None:
    """Leave nothing in the log, outside of a transaction: it would keep what was deleted until it is written over."""
    (busy,) = connection.execute("pragma wal_checkpoint(truncate)").fetchone()[:1]
    if busy:
        raise sqlite3.OperationalError("its log is in use")


def _make_directory(directory: Path) -> None:
    try:
        if not directory.exists():
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)
            fsync(directory.parent)
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
    except (NotADirectoryError, FileExistsError) as error:
        raise ConfigError(
            f"The outbox cannot be kept in {directory}: {error.filename} is a file. Name a directory in [outbox] url."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"The outbox's directory {directory} cannot be used: {error.strerror}. Create it for this user, or name another in [outbox] url."
        ) from error


def fsync(directory: Path) -> None:
    """Make new names in the directory, and the end of old ones, durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"The outbox cannot write {path}: {error.strerror}. Give this user the right to, or name another directory in [outbox] url."
        ) from error


def _lock(path: Path) -> int:
    lock = _create(path, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(lock, 20).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise OutboxHeld(
            f"The outbox in {path.parent} is in use by another whisper-bridge (process {holder}): stop that one, or name another directory in [outbox] url."
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < (3, 35):  # RETURNING
        raise OutboxDown(
            f"The outbox needs SQLite 3.35 or newer, and this Python has {sqlite3.sqlite_version}."
        )
    database = _create(path, os.O_RDWR)
    os.fchmod(database, 0o600)  # SQLite gives its log the same mode
    os.close(database)
    fsync(path.parent)
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        for setting in SETTINGS:
            connection.execute(setting)
        _upgrade(connection, path)
        (damage,) = connection.execute("pragma quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        _close(connection)
        raise OutboxDown(f"The outbox {path} cannot be opened: {error}.") from error
    except sqlite3.DatabaseError as error:
        _close(connection)
        raise _damaged(path, str(error)) from error
    except BaseException:
        _close(connection)
        raise
    if damage != "ok":
        connection.close()
        raise _damaged(path, damage)
    return connection


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()


def _damaged(path: Path, what: str) -> OutboxDown:
    return OutboxDown(
        f"The outbox {path} is damaged ({' '.join(what.split())}): restore it from a backup, or move it away to start with an empty one."
    )


def _upgrade(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if version > VERSION:
        raise OutboxDown(
            f"The outbox {path} was written by a newer whisper-bridge (schema {version}, this one knows {VERSION}): install that version again, or name another directory in [outbox] url."
        )
    # One transaction: a crash in between leaves the file as it was, not half a schema.
    steps = {0: SCHEMA, 1: FROM_1, 2: FROM_2}
    if version in steps:
        connection.create_function("sha256", 1, lambda body: sha256(body).digest())
        connection.executescript(
            f"begin immediate; {steps[version]} pragma user_version = {VERSION}; commit;"
        )
