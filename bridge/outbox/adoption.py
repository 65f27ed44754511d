"""What workers that are no more left in their files: the first worker takes it into its own.

Killed at any moment, it is done again at the next start: what was taken already is known again.
"""

import contextlib
import re
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from bridge import log
from bridge.errors import BridgeError
from bridge.outbox import operations
from bridge.outbox.file import database, fsync, open_file, scrub
from bridge.outbox.lease import REPLAY

_log = log.get(__name__)

_MERGE = (
    """insert into main.calls select * from stray.calls where true on conflict (call_sid) do update set
         epoch = max(epoch, excluded.epoch), next_sequence = max(next_sequence, excluded.next_sequence),
         ended = max(ended, excluded.ended), erased = max(erased, excluded.erased),
         spoken = max(spoken, excluded.spoken),
         created_at = min(created_at, excluded.created_at), seen_at = max(seen_at, excluded.seen_at)""",
    """insert into main.watermarks select * from stray.watermarks where true
         on conflict (call_sid, track) do update set position = max(position, excluded.position)""",
    # A call's owner numbers its lines on from the last one: the new ones come after those that are here.
    """insert into main.lines
       select call_sid, number + coalesce((select max(number) from main.lines as ours
                                           where ours.call_sid = theirs.call_sid), 0),
         track, start_ms, end_ms, text
       from stray.lines as theirs where not exists
         (select 1 from main.lines as ours
          where ours.call_sid = theirs.call_sid and ours.track = theirs.track
            and ours.start_ms = theirs.start_ms and ours.end_ms = theirs.end_ms and ours.text = theirs.text)""",
    "insert or ignore into main.spent select * from stray.spent",
    "insert or ignore into main.endpoints select * from stray.endpoints",
    "insert or ignore into main.attachments select * from stray.attachments",
)

_LANE = "lane, endpoint, call_sid, head, next, attempts, first_failure, due_at, lease_by, lease_s, epoch"
_COPIED = "event_id, type, body, sha256, state, created_at, delivered_at, tries, last_status, last_error"


def adopt_strays(connection: sqlite3.Connection, directory: Path, *, workers: int) -> None:
    """Take over what lies in the files of workers above `workers`, and remove those files.

    A file that is in use, or that cannot be read, stays where it is, and is named in the log.
    """
    for worker in _numbers(directory):
        if worker <= workers:
            continue
        try:
            events = _adopt(connection, directory, worker)
        except (BridgeError, sqlite3.Error, OSError) as error:
            _log.error("outbox_not_adopted", file=database(directory, worker).name, error=str(error))
        else:
            _log.info("outbox_adopted", file=database(directory, worker).name, events=events)


def _numbers(directory: Path) -> list[int]:
    """Of the workers after the first that have a file, in order."""
    found = (re.fullmatch(r"outbox\.([1-9]\d*)\.sqlite3", path.name) for path in directory.iterdir())
    return sorted(number for name in found if name and (number := int(name[1])) > 1)


def _adopt(connection: sqlite3.Connection, directory: Path, worker: int) -> int:
    """Take over one file; how many events."""
    path = database(directory, worker)
    with contextlib.closing(open_file(directory, worker)) as stray:
        stray.connection.close()  # that was to lock, upgrade and check it: it has one connection at a time
        connection.execute("attach ? as stray", (str(path),))
        try:
            with _transaction(connection):
                events, erased = _merge(connection), _erase(connection)
        finally:
            connection.execute("detach stray")
        if erased:
            scrub(connection)
        for suffix in ("-wal", "-shm", ""):  # a log without its file would be taken for that of the next one
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        fsync(directory)
    return events


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    finally:
        if connection.in_transaction:
            connection.execute("rollback")


def _merge(db: sqlite3.Connection) -> int:
    for statement in _MERGE:
        db.execute(statement)
    events = 0
    shared = db.execute(
        "select theirs.lane, theirs.next > ours.next from stray.lanes as theirs join main.lanes as ours using (lane)"
    ).fetchall()
    for lane, longer in shared:
        # The call goes on after its last number, so the longer lane is the one that keeps its name.
        if longer:
            _rename(db, lane)
        else:
            events += _take_unknown(db, lane)
    events += db.execute(
        f"""insert into main.events (lane, position, sequence, {_COPIED})
            select lane, position, sequence, {_COPIED} from stray.events
            where lane not in (select lane from main.lanes) order by serial"""  # noqa: S608 - constants
    ).rowcount
    db.execute(
        f"""insert into main.lanes ({_LANE})
            select {_LANE} from stray.lanes where lane not in (select lane from main.lanes)"""  # noqa: S608 - constants
    )
    return events


def _rename(db: sqlite3.Connection, lane: str) -> None:
    name = _name_beside(lane)
    db.execute("update main.lanes set lane = ? where lane = ?", (name, lane))
    db.execute("update main.events set lane = ? where lane = ?", (name, lane))


def _take_unknown(db: sqlite3.Connection, lane: str) -> int:
    """Take the events of a lane that are not here, in a lane of their own; how many."""
    name = _name_beside(lane)
    taken = db.execute(
        f"""insert into main.events (lane, position, sequence, {_COPIED})
            select ?, row_number() over (order by position), sequence, {_COPIED} from stray.events as theirs
            where lane = ? and not exists
              (select 1 from main.events as ours join main.lanes using (lane)
               where ours.event_id = theirs.event_id and ours.sha256 = theirs.sha256
                 and endpoint = (select endpoint from stray.lanes where lane = theirs.lane))
            order by serial""",  # noqa: S608 - constants
        (name, lane),
    ).rowcount
    if taken:
        db.execute(
            f"""insert into main.lanes ({_LANE})
               select ?, endpoint, call_sid,
                 (select count(*) + 1 from main.events where lane = ? and state <> 'pending'), ?,
                 attempts, first_failure, due_at, lease_by, lease_s, epoch
               from stray.lanes where lane = ?""",  # noqa: S608 - constants
            (name, name, taken + 1, lane),
        )
    return taken


def _name_beside(lane: str) -> str:
    call, replay = (lane.removesuffix(REPLAY), REPLAY) if lane.endswith(REPLAY) else (lane, "")
    return f"{call}/{secrets.token_hex(4)}{replay}"


def _erase(db: sqlite3.Connection) -> int:
    """Erase here what was erased in one of the files; how many calls."""
    erased = db.execute(
        "select call_sid from main.calls join stray.calls using (call_sid) where main.calls.erased"
    ).fetchall()
    for (call_sid,) in erased:
        operations.erase(db, call_sid=call_sid)
    return len(erased)
