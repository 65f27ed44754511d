"""What the SQLite outbox does about who has which call: takings, heirs, nodes and orphans.

Every function runs inside a transaction; `now` is seconds since 1970.
"""

import sqlite3
from collections.abc import Mapping

from bridge.outbox.lease import CallLease, Erased, Fenced
from bridge.outbox.ownership import Known

PAUSE_S = 5.0
"""When no node was heard for so long, the store was away, and not they: beats come every 2 s."""

FORGOTTEN_S = 86_400.0
"""A node that has been silent for a day, and has no call to be taken from it, is of interest to nobody."""

# Silence is measured against whoever was heard last: while the store is away, nobody becomes silent.
_NEWEST = "(select min(max(seen_at), :now) from nodes)"
_LIVING = f"(select node from nodes where seen_at > {_NEWEST} - :silent_s)"  # noqa: S608 - constants
_KNOWN = f"""select call_sid, owner, node, max(0, coalesce({_NEWEST} - nodes.seen_at, 9e999)), heir,
       ended, erased, meta from calls left join nodes using (node)"""  # noqa: S608 - constants

# Who has open calls: one look into their index for each, so that those of the living are not read.
_SILENT = f"""with recursive holders (node) as (
       select min(node) from calls where not ended
       union all
       select (select min(node) from calls where not ended and node > holders.node)
       from holders where node is not null)
     select node from holders except select * from {_LIVING}"""  # noqa: S608 - constants


def own(
    db: sqlite3.Connection,
    *,
    call_sid: str,
    owner: str,
    meta: bytes,
    node: str,
    only_from: str | None,
    now: float,
) -> CallLease:
    """Take the call over: the epoch goes up by one. Raises `Fenced` if it is not `only_from`'s to take."""
    taken = db.execute(
        """insert into calls (call_sid, owner, epoch, meta, spoken, created_at, seen_at, node)
           values (?, ?, 1, ?, ?, ?, ?, ?)
           on conflict (call_sid) do update
           set owner = excluded.owner, epoch = epoch + 1, seen_at = excluded.seen_at, node = excluded.node,
             heir = '', meta = case when erased or length(meta) then meta else excluded.meta end,
             spoken = max(spoken, excluded.spoken and not erased)
           where ? is null or owner in (?, excluded.owner)
           returning epoch, next_sequence, ended, erased, meta""",
        (call_sid, owner, meta, bool(meta), now, now, node, only_from, only_from),
    ).fetchone()
    if taken is None:
        raise Fenced.call(call_sid)
    epoch, following, ended, erased, known = taken
    if node and not db.execute("select 1 from nodes where node = ?", (node,)).fetchone():
        beat(db, node=node, now=now)
    watermarks = db.execute("select track, position from watermarks where call_sid = ?", (call_sid,))
    return CallLease(
        call_sid, owner, epoch, following, dict(watermarks.fetchall()), bool(ended), bool(erased), known
    )


def inherit(
    db: sqlite3.Connection,
    *,
    call_sid: str,
    heir: str,
    meta: bytes,
    node: str,
    silent_s: float,
    now: float,
) -> CallLease | None:
    """Take the call over if nobody is at work on it; else its owner learns of the heir, and None."""
    waiting = db.execute(
        f"""update calls set heir = :heir
            where call_sid = :sid and not ended and owner <> :heir and node in {_LIVING}""",  # noqa: S608 - constants
        {"heir": heir, "sid": call_sid, "now": now, "silent_s": silent_s},
    )
    if waiting.rowcount:
        return None
    return own(db, call_sid=call_sid, owner=heir, meta=meta, node=node, only_from=None, now=now)


def note(db: sqlite3.Connection, *, lease: CallLease, meta: bytes, now: float) -> None:
    """Replace what is said of the call."""
    noted = db.execute(
        """update calls set meta = ?, spoken = max(spoken, ?), seen_at = ?
           where call_sid = ? and epoch = ? and not erased""",
        (meta, bool(meta), now, lease.call_sid, lease.epoch),
    )
    if not noted.rowcount:
        raise refusal(db, lease.call_sid)


def let_go(db: sqlite3.Connection, *, lease: CallLease) -> None:
    """Leave the call to whoever takes it next."""
    db.execute(
        "update calls set owner = '', node = '' where call_sid = ? and epoch = ?",
        (lease.call_sid, lease.epoch),
    )


def beat(db: sqlite3.Connection, *, node: str, now: float) -> Mapping[str, str]:
    """Say that a node lives; its open calls, each with its heir. After a pause, every silence begins anew."""
    db.execute(
        "update nodes set seen_at = ? where not exists (select 1 from nodes where seen_at > ?)",
        (now, now - PAUSE_S),
    )
    db.execute(
        "insert into nodes values (?, ?) on conflict (node) do update set seen_at = excluded.seen_at",
        (node, now),
    )
    return dict(
        db.execute("select call_sid, heir from calls where node = ? and not ended", (node,)).fetchall()
    )


def died(db: sqlite3.Connection, *, node: str, now: float) -> None:
    """The node is no more: nobody was ever less heard of, and its lanes are free and due. It goes through all lanes."""
    db.execute("delete from nodes where node = ?", (node,))
    db.execute("update lanes set lease_by = null, due_at = ? where lease_by = ?", (now, node))


def orphans(db: sqlite3.Connection, *, silent_s: float, limit: int, now: float) -> list[Known]:
    """Open calls that nobody is at work on, the oldest first."""
    rows = db.execute(
        f"""{_KNOWN} where call_sid in
              (select call_sid from calls indexed by calls_open where not ended and node in ({_SILENT})
               order by created_at, call_sid limit :limit)
            order by created_at, call_sid""",  # noqa: S608 - constants
        {"now": now, "silent_s": silent_s, "limit": limit},
    )
    return [_known(row) for row in rows.fetchall()]


def known(db: sqlite3.Connection, *, call_sid: str, now: float) -> Known | None:
    """What is known of the call."""
    row = db.execute(f"{_KNOWN} where call_sid = :sid", {"now": now, "sid": call_sid}).fetchone()
    return _known(row) if row else None


def forget(db: sqlite3.Connection, *, now: float) -> None:
    """Remove nodes that are of no interest any more. None was seen in the future: the clock was set back."""
    db.execute("update nodes set seen_at = ? where seen_at > ?", (now, now))
    db.execute(
        """delete from nodes where seen_at <= ?
             and not exists (select 1 from calls where calls.node = nodes.node and not ended)""",
        (now - FORGOTTEN_S,),
    )


def refusal(db: sqlite3.Connection, call_sid: str) -> Fenced:
    """Why a lease of the call is of no use any more."""
    if db.execute("select 1 from calls where call_sid = ? and erased", (call_sid,)).fetchone():
        return Erased(f"The call {call_sid} was erased.")
    return Fenced.call(call_sid)


def _known(row: tuple[str, str, str, float, str, int, int, bytes]) -> Known:
    call_sid, owner, node, silent_s, heir, ended, erased, meta = row
    return Known(call_sid, owner, node, silent_s, heir, bool(ended), bool(erased), meta)
