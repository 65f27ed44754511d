"""What the SQLite outbox does for operators: listings, replays and erasure.

Every function runs inside a transaction; `now` is seconds since 1970. What may be much is done in
several bites, each in its own transaction, so that publishes get their turn in between.
"""

import json
import sqlite3
from collections.abc import Collection, Mapping
from typing import Any

from bridge.outbox.lease import REPLAY
from bridge.outbox.outbox import Record, Selection, State, endpoint_tag, lane_name

SCAN = 20_000
"""Events that one look goes through where no index helps: some 10 ms."""

BITE = 500
"""Events that a replay moves, or lanes that it makes due, in one transaction: some 10 ms."""

ANY: frozenset[State] = frozenset(("pending", "done", "dead", "erased"))
_DEAD: frozenset[State] = frozenset(("dead",))
_SETTLED: frozenset[State] = frozenset(("dead", "done"))

_BY_ID = "events cross join lanes using (lane) where event_id in (select value from json_each(:event_ids))"
_BY_CALL = "lanes cross join events using (lane) where call_sid = :call_sid"
_BY_STATE: dict[State, str] = {
    "dead": "events cross join lanes using (lane) where state = 'dead' and serial >= :low and serial < :high",
    "pending": "events cross join lanes using (lane) where state = 'pending' and serial >= :low and serial < :high",
}
_ONE_BY_ONE = "events cross join lanes using (lane) where serial >= :low and serial < :high"

# The plus signs keep SQLite from another index than that of the source.
_SELECTED = """
    and +serial >= :low and +serial < :high and +state in (select value from json_each(:states))
    and (:call_sid = '' or +call_sid = :call_sid) and (:endpoint = '' or +endpoint = :endpoint)
    and (:since is null or created_at >= :since) and (:until is null or created_at < :until)
    and (:event_ids = '[]' or +event_id in (select value from json_each(:event_ids)))
    and (not :kept or body is not null)"""


def records(
    db: sqlite3.Connection, *, selection: Selection, limit: int, before: int | None
) -> tuple[list[Record], int | None]:
    """Selected events, the last stored first, and the serial to go on before; None at the end."""
    end = _end(db)
    high = end if before is None else min(before, end)
    states = selection.states or ANY
    low = max(0, high - SCAN) if _scans(selection) else 0
    serials, values = _serials(db, selection, states, low, high)
    rows = db.execute(
        f"""select serial, event_id, endpoint, call_sid, sequence, type, state, lane, body is not null,
              lower(hex(sha256)), created_at, delivered_at, tries, last_status, last_error,
              case when state = 'pending' and position = head then due_at end
            from events join lanes using (lane)
            where serial in ({serials} order by serial desc limit :limit) order by serial desc""",  # noqa: S608 - constants
        values | {"limit": limit},
    ).fetchall()
    found = [Record(*(*row[:7], row[7].endswith(REPLAY), bool(row[8]), *row[9:])) for row in rows]
    return found, low if low and len(found) < limit else None


def begin(db: sqlite3.Connection, *, selection: Selection) -> int:
    """Begin a replay: a named endpoint is paused no more.

    The serial that the next event will have: it is no part of this replay.
    """
    if selection.endpoint:
        _resume(db, _endpoint(db, selection.endpoint))
    return _end(db)


def hasten(
    db: sqlite3.Connection, *, selection: Selection, after: str, end: int, now: float
) -> tuple[int, str | None]:
    """Make lanes of selected pending events, of serials below `end`, due: those whose names come after `after`.

    How many events these are, and the lane to go on after; None at the end.
    """
    if "pending" not in (selection.states or ANY):
        return 0, None
    values = _values(db, selection, {"pending"}, 0, end)
    waiting = db.execute(
        f"{_waiting(selection)} and lane > :after order by lane limit :limit",
        values | {"after": after, "limit": BITE},
    )
    bite = [lane for (lane,) in waiting]
    selected = db.execute(
        f"""select lane, endpoint, count(*) from lanes cross join events using (lane)
            where lane in (select value from json_each(:bite)) and position >= head {_SELECTED}
            group by lane""",  # noqa: S608 - constants
        values | {"bite": json.dumps(bite)},
    ).fetchall()
    _make_due(db, {lane: endpoint for lane, endpoint, _ in selected}, now)
    return sum(events for *_, events in selected), bite[-1] if len(bite) == BITE else None


def replay(
    db: sqlite3.Connection, *, selection: Selection, first: int, end: int, now: float
) -> tuple[int, int | None]:
    """Move selected settled events, from serial `first` to below `end`, into their calls' lanes of replays.

    How many were moved, and the serial to go on from; None at the end.
    """
    states = (selection.states or _DEAD) & _SETTLED
    if not states:
        return 0, None
    high = min(end, first + SCAN) if _scans(selection) else end
    serials, values = _serials(db, selection, states, first, high, kept=True)
    # An event keeps its serial, so this is the order of each call.
    rows = db.execute(
        f"""select serial, endpoint, call_sid from events join lanes using (lane)
            where serial in ({serials} order by serial limit :limit) order by serial""",  # noqa: S608 - constants
        values | {"limit": BITE},
    ).fetchall()
    touched = {}
    for serial, endpoint, call_sid in rows:
        lane = lane_name(endpoint, call_sid) + REPLAY
        touched[lane] = endpoint
        db.execute(
            """insert into lanes (lane, endpoint, call_sid, next, due_at) values (?, ?, ?, 2, ?)
               on conflict (lane) do update set next = next + 1""",
            (lane, endpoint, call_sid, now),
        )
        db.execute(
            """update events set lane = ?, position = (select next - 1 from lanes where lane = ?),
                 state = 'pending', delivered_at = null where serial = ?""",
            (lane, lane, serial),
        )
    _make_due(db, touched, now)
    following = rows[-1][0] + 1 if len(rows) == BITE else high
    return len(rows), following if following < end else None


def erase(db: sqlite3.Connection, *, call_sid: str) -> int:
    """Remove the bodies of a call, and fence off who owns or delivers it; how many bodies.

    Raises `LookupError` for a call that is not known.
    """
    known = db.execute(
        "update calls set erased = 1, ended = 1, spoken = 0, epoch = epoch + 1, meta = x'' where call_sid = ?",
        (call_sid,),
    )
    if not known.rowcount:
        raise LookupError(call_sid)
    db.execute("delete from lines where call_sid = ?", (call_sid,))
    db.execute(
        """update lanes set head = next, attempts = 0, first_failure = null, lease_by = null, epoch = epoch + 1
           where call_sid = ?""",
        (call_sid,),
    )
    return db.execute(
        """update events set body = null, state = case state when 'pending' then 'erased' else state end
           where lane in (select lane from lanes where call_sid = ?) and body is not null""",
        (call_sid,),
    ).rowcount


def _make_due(db: sqlite3.Connection, lanes: Mapping[str, str], now: float) -> None:
    """Make lanes due, unless they are leased, and deliver to their endpoints again."""
    db.executemany(
        """update lanes set due_at = ?, attempts = 0, first_failure = null
           where lane = ? and lease_by is null""",
        [(now, lane) for lane in lanes],
    )
    for endpoint in set(lanes.values()):
        _resume(db, endpoint)


def _resume(db: sqlite3.Connection, endpoint: str | None) -> None:
    db.execute("update endpoints set paused = null where endpoint = ? and paused is not null", (endpoint,))


def _end(db: sqlite3.Connection) -> int:
    """The serial that the next event will have."""
    (last,) = db.execute("select coalesce(max(serial), 0) from events").fetchone()
    return int(last) + 1


def _endpoint(db: sqlite3.Connection, named: str) -> str | None:
    """The endpoint of that URL or tag; None if there is none."""
    for (endpoint,) in db.execute("select endpoint from endpoints"):
        if named in (endpoint, endpoint_tag(endpoint)):
            return str(endpoint)
    return None


def _waiting(selection: Selection) -> str:
    """A query for lanes, among them all that have a selected pending event."""
    if selection.event_ids:
        return f"select distinct lane from {_BY_ID} and head < next"  # noqa: S608 - constants
    if selection.call_sid:
        return "select lane from lanes where call_sid = :call_sid and head < next"
    return "select lane from lanes where head < next"


def _scans(selection: Selection) -> bool:
    """Whether it may be much that is looked at: no index leads to just the events that are selected."""
    return not (selection.event_ids or selection.call_sid)


def _serials(
    db: sqlite3.Connection,
    selection: Selection,
    states: Collection[State],
    low: int,
    high: int,
    *,
    kept: bool = False,
) -> tuple[str, dict[str, Any]]:
    """A query for the serials of selected events, from `low` to below `high`, and the values it needs."""
    if selection.event_ids:
        sources = [_BY_ID]
    elif selection.call_sid:
        sources = [_BY_CALL]
    elif set(states) <= _BY_STATE.keys():
        sources = [_BY_STATE[state] for state in states]
    else:
        sources = [_ONE_BY_ONE]
    query = " union all ".join(f"select serial from {source} {_SELECTED}" for source in sources)  # noqa: S608 - constants
    return query, _values(db, selection, states, low, high, kept=kept)


def _values(
    db: sqlite3.Connection,
    selection: Selection,
    states: Collection[State],
    low: int,
    high: int,
    *,
    kept: bool = False,
) -> dict[str, Any]:
    """What `_SELECTED` and the sources need."""
    endpoint = selection.endpoint and _endpoint(db, selection.endpoint)
    return {
        "event_ids": json.dumps(selection.event_ids),
        "call_sid": selection.call_sid,
        "endpoint": endpoint,
        "states": json.dumps(sorted(states)),
        "since": selection.since,
        "until": selection.until,
        "kept": kept,
        "low": low,
        "high": low if endpoint is None else high,
    }
