"""What the SQLite outbox does for the owner of a call: fencing, events, watermarks.

Every function runs inside a transaction; `now` is seconds since 1970.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from bridge.outbox.outbox import CallLease, Fenced, Outgoing, lane_name


def own(db: sqlite3.Connection, *, call_sid: str, owner: str, meta: bytes, now: float) -> CallLease:
    """Take the call over: the epoch goes up by one."""
    epoch, next_sequence, ended = db.execute(
        """insert into calls (call_sid, owner, epoch, meta, seen_at) values (?, ?, 1, ?, ?)
           on conflict (call_sid) do update
           set owner = excluded.owner, epoch = epoch + 1, meta = excluded.meta, seen_at = excluded.seen_at
           returning epoch, next_sequence, ended""",
        (call_sid, owner, meta, now),
    ).fetchone()
    watermarks = db.execute("select track, position from watermarks where call_sid = ?", (call_sid,))
    return CallLease(call_sid, owner, epoch, next_sequence, dict(watermarks.fetchall()), bool(ended))


def publish(
    db: sqlite3.Connection,
    *,
    lease: CallLease,
    events: Sequence[Outgoing],
    watermarks: Mapping[str, int],
    ended: bool,
    now: float,
) -> None:
    """Store events and watermarks, unless the call has a newer owner (`Fenced`)."""
    owned = db.execute(
        """update calls set seen_at = ?, ended = max(ended, ?), next_sequence = max(next_sequence, ?)
           where call_sid = ? and epoch = ?""",
        (now, ended, max((event.sequence for event in events), default=0) + 1, lease.call_sid, lease.epoch),
    )
    if not owned.rowcount:
        raise Fenced(f"The call {lease.call_sid} has a newer owner.")
    for event in events:
        _store(db, lease.call_sid, event, now)
    db.executemany(
        """insert into watermarks values (?, ?, ?)
           on conflict (call_sid, track) do update set position = max(position, excluded.position)""",
        [(lease.call_sid, track, position) for track, position in watermarks.items()],
    )


def spend(db: sqlite3.Connection, *, nonce: str, expires: float, now: float) -> bool:
    """Remember a stream token's nonce until it expires; False if it is known."""
    db.execute("delete from spent where expires <= ?", (now,))
    return (
        db.execute("insert into spent values (?, ?) on conflict do nothing", (nonce, expires)).rowcount == 1
    )


def _store(db: sqlite3.Connection, call_sid: str, event: Outgoing, now: float) -> None:
    lane = lane_name(event.endpoint, call_sid)
    row = db.execute("select next from lanes where lane = ?", (lane,)).fetchone()
    if row is None:
        db.execute("insert into endpoints (endpoint) values (?) on conflict do nothing", (event.endpoint,))
        db.execute(
            "insert into lanes (lane, endpoint, call_sid, due_at) values (?, ?, ?, ?)",
            (lane, event.endpoint, call_sid, now),
        )
    following = row[0] if row else 1
    if event.sequence > following:
        raise ValueError(f"{lane}: event {event.sequence} published where {following} is the next")
    if event.sequence < following:
        known = db.execute(
            "select event_id from events where lane = ? and sequence = ?", (lane, event.sequence)
        ).fetchone()
        if known != (event.event_id,):
            raise ValueError(f"{lane}: another event is stored as number {event.sequence}")
        return
    db.execute(
        "insert into events (lane, sequence, event_id, type, body, created_at) values (?, ?, ?, ?, ?, ?)",
        (lane, event.sequence, event.event_id, event.type, event.body, now),
    )
    # An idle lane is due at once, even if the clock was set back since it became idle.
    db.execute(
        """update lanes set next = next + 1,
             due_at = case when head = next and lease_by is null then min(due_at, ?) else due_at end
           where lane = ?""",
        (now, lane),
    )
