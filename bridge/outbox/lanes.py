"""What the SQLite outbox does for delivery: leases of lanes, and what became of their events.

Every function runs inside a transaction; `now` is seconds since 1970. A leased lane's `due_at` is
the end of its lease, so a lane whose lease ran out is simply due again.
"""

import sqlite3
from collections.abc import Collection, Mapping
from functools import partial
from itertools import islice
from typing import Any

from bridge.outbox.lease import Fenced, LaneLease
from bridge.outbox.outbox import Stats, Stored

LONGEST_WAIT_S = 3600.0
"""No lane waits longer than the longest `Retry-After`; a later due time means a clock that was set back."""

# A look-up for each priority: an index on (endpoint, priority, due_at) has no first due time of them all.
_PRIORITIES = "(values (0), (1), (2)) as priorities"
_FIRST_DUE = f"""
    select endpoint, priorities.column1 as priority,
      (select min(due_at) from lanes
       where endpoint = endpoints.endpoint and priority = priorities.column1 and head < next) as due_at
    from endpoints cross join {_PRIORITIES} where paused is null"""  # noqa: S608 - constants


def start_afresh(db: sqlite3.Connection, *, now: float) -> None:
    """Void the leases, pauses and beats of the last process: the file has one owner, so that one is dead."""
    db.execute("delete from nodes")
    db.execute(
        "update lanes set lease_by = null, due_at = ? where lease_by is not null or due_at > ?",
        (now, now + LONGEST_WAIT_S),
    )
    db.execute("update endpoints set paused = null where paused is not null")


def claim(
    db: sqlite3.Connection,
    *,
    owner: str,
    limit: int,
    lease_s: float,
    each: int,
    room: Mapping[str, int],
    now: float,
) -> list[LaneLease]:
    """Lease due lanes by priority, then longest due first; the cost grows with the endpoints, not with what waits."""
    waiting = db.execute(
        f"select endpoint, priority from ({_FIRST_DUE}) where due_at <= ? order by priority, due_at",  # noqa: S608 - constants
        (now,),
    )
    ready: dict[str, list[int]] = {}
    for endpoint, priority in waiting:
        if room.get(endpoint, each) > 0:
            ready.setdefault(endpoint, []).append(priority)
    due: list[tuple[int, float, str]] = []
    # The first lane of an endpoint after these is behind `limit` others.
    for endpoint, priorities in islice(ready.items(), limit):
        share = min(room.get(endpoint, each), limit)
        lanes = [
            lane
            for priority in priorities
            for lane in db.execute(
                """select priority, due_at, lane from lanes
                   where endpoint = ? and priority = ? and head < next and due_at <= ?
                   order by due_at, lane limit ?""",
                (endpoint, priority, now, share),
            )
        ]
        due += lanes[:share]
    lease = partial(_lease, db, owner=owner, lease_s=lease_s, now=now)
    leases = [lease(lane) for *_, lane in sorted(due)[:limit]]
    return [LaneLease(*lease) for lease in leases if lease]


def take(
    db: sqlite3.Connection, *, heads: Mapping[str, int], owner: str, lease_s: float, now: float
) -> list[LaneLease]:
    """Lease those of these lanes that are due and have this head."""
    leases = [_lease(db, lane, head, owner=owner, lease_s=lease_s, now=now) for lane, head in heads.items()]
    return [LaneLease(*lease) for lease in leases if lease]


def peek(db: sqlite3.Connection, *, lane: LaneLease, limit: int) -> list[Stored]:
    """The lane's next events, from its head on."""
    row = db.execute(
        "select head from lanes where lane = ? and epoch = ? and lease_by is not null",
        (lane.lane, lane.epoch),
    ).fetchone()
    if row is None:
        raise _fenced(lane)
    rows = db.execute(
        """select lane, position, sequence, event_id, type, body, created_at from events
           where lane = ? and position >= ? order by position limit ?""",
        (lane.lane, row[0], limit),
    )
    return [Stored(*row) for row in rows.fetchall()]


def ack(db: sqlite3.Connection, *, lane: LaneLease, position: int, now: float) -> bool:
    """The event was accepted; whether more is pending. The lane is free if not."""
    advanced = db.execute(
        """update lanes set head = head + 1, attempts = 0, first_failure = null, due_at = ? + lease_s,
             lease_by = case when head + 1 < next then lease_by end
           where lane = ? and epoch = ? and head = ? and lease_by is not null
           returning head < next""",
        (now, lane.lane, lane.epoch, position),
    ).fetchone()
    if advanced is None:
        raise _fenced(lane)
    db.execute(
        "update events set state = 'done', delivered_at = ?, tries = tries + 1 where lane = ? and position = ?",
        (now, lane.lane, position),
    )
    return bool(advanced[0])


def bury(
    db: sqlite3.Connection, *, lane: LaneLease, position: int, status: int | None, reason: str, now: float
) -> None:
    """The event is given up. `first_failure` stays: the next event meets the same outage."""
    advanced = db.execute(
        """update lanes set head = head + 1, attempts = 0, due_at = ? + lease_s
           where lane = ? and epoch = ? and head = ? and lease_by is not null""",
        (now, lane.lane, lane.epoch, position),
    )
    if not advanced.rowcount:
        raise _fenced(lane)
    db.execute(
        "update events set state = 'dead', tries = tries + 1, last_status = ?, last_error = ? where lane = ? and position = ?",
        (status, reason, lane.lane, position),
    )


def retry(
    db: sqlite3.Connection,
    *,
    lane: LaneLease,
    position: int,
    delay_s: float,
    status: int | None,
    error: str,
    now: float,
) -> None:
    """The event was not accepted; the lane is free again and due in `delay_s`."""
    waiting = db.execute(
        """update lanes set attempts = attempts + 1, first_failure = coalesce(first_failure, ?),
             due_at = ?, lease_by = null
           where lane = ? and epoch = ? and head = ? and lease_by is not null""",
        (now, now + delay_s, lane.lane, lane.epoch, position),
    )
    if not waiting.rowcount:
        raise _fenced(lane)
    db.execute(
        "update events set tries = tries + 1, last_status = ?, last_error = ? where lane = ? and position = ?",
        (status, error, lane.lane, position),
    )


def release(db: sqlite3.Connection, *, lane: LaneLease, now: float) -> None:
    """The lane is free again, and due if anything is pending."""
    db.execute(
        "update lanes set lease_by = null, due_at = ? where lane = ? and epoch = ? and lease_by is not null",
        (now, lane.lane, lane.epoch),
    )


def pause(db: sqlite3.Connection, *, endpoint: str, reason: str) -> None:
    """No lane of the endpoint is claimed until a replay names it or the next start."""
    db.execute(
        "insert into endpoints values (?, ?) on conflict (endpoint) do update set paused = excluded.paused",
        (endpoint, reason),
    )


def next_due(db: sqlite3.Connection, *, without: Collection[str], now: float) -> float | None:
    """Seconds until a lane becomes due, None if nothing is pending."""
    rows = db.execute(_FIRST_DUE)
    due_at = min(
        (due for endpoint, _, due in rows if due is not None and endpoint not in without), default=None
    )
    return None if due_at is None else max(0.0, due_at - now)


def mend(db: sqlite3.Connection, *, limit: int, now: float) -> int:
    """Make up to `limit` lanes due that would wait longer than any does, as the clock was set back; how many.

    A leased one is due when its lease ends, counted from now: somebody may be at work on it.
    """
    return db.execute(
        f"""update lanes set due_at = case when lease_by is null then ? else ? + lease_s end where lane in
             (select lane from endpoints cross join {_PRIORITIES} cross join lanes using (endpoint)
              where priority = priorities.column1 and head < next and due_at > ? limit ?)""",  # noqa: S608 - constants
        (now, now, now + LONGEST_WAIT_S, limit),
    ).rowcount


def stats(db: sqlite3.Connection, *, now: float) -> Stats:
    """Count what waits; the oldest is the first stored, as the clock may have been set back since.

    The cost grows with the lanes that wait: some 10 ms for 100,000.
    """
    pending, backoff = db.execute(
        """select coalesce(sum(next - head), 0), coalesce(sum(attempts > 0), 0)
           from lanes indexed by lanes_waiting where head < next"""
    ).fetchone()
    oldest = db.execute(
        "select created_at from events where state = 'pending' order by serial limit 1"
    ).fetchone()
    (dead,) = db.execute("select count(*) from events where state = 'dead'").fetchone()
    (paused,) = db.execute("select count(*) from endpoints where paused is not null").fetchone()
    return Stats(pending, max(0.0, now - oldest[0]) if oldest else 0.0, backoff, dead, paused)


def _lease(
    db: sqlite3.Connection, lane: str, head: int | None = None, *, owner: str, lease_s: float, now: float
) -> tuple[Any, ...] | None:
    leased: tuple[Any, ...] | None = db.execute(
        """update lanes set lease_by = ?, lease_s = ?, due_at = ?, epoch = epoch + 1
           where lane = ? and head = coalesce(?, head) and head < next and due_at <= ?
             and (select paused is null from endpoints where endpoint = lanes.endpoint)
           returning lane, endpoint, call_sid, epoch, head, attempts, first_failure""",
        (owner, lease_s, now + lease_s, lane, head, now),
    ).fetchone()
    return leased


def _fenced(lane: LaneLease) -> Fenced:
    return Fenced(f"The lane {lane.lane} has a newer owner.")
