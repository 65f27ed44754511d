"""What the SQLite outbox does for the owner of a call: events, watermarks, lines, and spent tokens.

Every function runs inside a transaction; `now` is seconds since 1970.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from hashlib import sha256

from bridge.outbox import lanes
from bridge.outbox.lease import CallLease, LaneLease
from bridge.outbox.outbox import Line, Outgoing, lane_name
from bridge.outbox.owners import refusal


def publish(
    db: sqlite3.Connection,
    *,
    lease: CallLease,
    events: Sequence[Outgoing],
    watermarks: Mapping[str, int],
    lines: Sequence[Line],
    ended: bool,
    deliverer: str,
    lease_s: float,
    now: float,
) -> list[LaneLease]:
    """Store all of it, unless the call has a newer owner (`Fenced`) or was `Erased`.

    With a `deliverer`, it gets the lanes that are due and whose first event is one of these.
    """
    following = max((event.sequence for event in events), default=0) + 1
    owned = db.execute(
        """update calls set seen_at = ?, spoken = max(spoken, ?), next_sequence = max(next_sequence, ?)
           where call_sid = ? and epoch = ? and not erased""",
        (now, bool(lines), following, lease.call_sid, lease.epoch),
    )
    if not owned.rowcount:
        raise refusal(db, lease.call_sid)
    if ended:  # by itself: SQLite writes the index of open calls whenever this column is set, to whatever
        db.execute("update calls set ended = 1 where call_sid = ?", (lease.call_sid,))
    heads: dict[str, int] = {}
    for event in events:
        lane = lane_name(event.endpoint, lease.call_sid)
        _store(db, lane, lease.call_sid, event, now)
        heads.setdefault(lane, event.sequence)
    db.executemany(
        """insert into watermarks values (?, ?, ?)
           on conflict (call_sid, track) do update set position = max(position, excluded.position)""",
        [(lease.call_sid, track, position) for track, position in watermarks.items()],
    )
    db.executemany(
        "insert into lines values (?, ?, ?, ?, ?, ?) on conflict do nothing",
        [(lease.call_sid, line.number, line.track, line.start_ms, line.end_ms, line.text) for line in lines],
    )
    if not deliverer:
        return []
    return lanes.take(db, heads=heads, owner=deliverer, lease_s=lease_s, now=now)


def transcript(db: sqlite3.Connection, *, call_sid: str) -> list[Line]:
    """The lines stored of a call."""
    rows = db.execute(
        "select number, track, start_ms, end_ms, text from lines where call_sid = ? order by number",
        (call_sid,),
    )
    return [Line(*row) for row in rows.fetchall()]


def spend(db: sqlite3.Connection, *, nonce: str, expires: float, now: float) -> bool:
    """Remember a stream token's nonce until it expires; False if it is known."""
    db.execute("delete from spent where expires <= ?", (now,))
    return (
        db.execute("insert into spent values (?, ?) on conflict do nothing", (nonce, expires)).rowcount == 1
    )


def _store(db: sqlite3.Connection, lane: str, call_sid: str, event: Outgoing, now: float) -> None:
    row = db.execute("select next from lanes where lane = ?", (lane,)).fetchone()
    if row is None:
        db.execute("insert into endpoints (endpoint) values (?) on conflict do nothing", (event.endpoint,))
        db.execute(
            "insert into lanes (lane, endpoint, call_sid, due_at) values (?, ?, ?, ?)",
            (lane, event.endpoint, call_sid, now),
        )
    following = row[0] if row else 1
    if not 1 <= event.sequence <= following:
        raise ValueError(f"{lane}: event {event.sequence} published where {following} is the next")
    if event.sequence < following:
        known = db.execute(
            "select event_id from events where lane = ? and position = ?", (lane, event.sequence)
        ).fetchone()
        # Without a row it was stored, and is gone from here by a replay or past its time.
        if known not in (None, (event.event_id,)):
            raise ValueError(f"{lane}: another event is stored as number {event.sequence}")
        return
    db.execute(
        """insert into events (lane, position, sequence, event_id, type, body, sha256, created_at)
           values (?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            lane,
            event.sequence,
            event.sequence,
            event.event_id,
            event.type,
            event.body,
            sha256(event.body).digest(),
            now,
        ),
    )
    # An idle lane is due at once, even if the clock was set back since it became idle.
    db.execute(
        """update lanes set next = next + 1,
             due_at = case when head = next and lease_by is null then min(due_at, ?) else due_at end
           where lane = ?""",
        (now, lane),
    )
