"""What the SQLite outbox removes because it is past its time: bodies, what was said, whole calls, and nodes.

Every function runs inside a transaction; `now` is seconds since 1970.
"""

import sqlite3

from bridge.outbox import owners


def purge(
    db: sqlite3.Connection, *, body_age_s: float, call_age_s: float, limit: int, now: float
) -> tuple[int, int, int]:
    """Remove bodies delivered, what was kept of calls ended, and calls begun, so long ago; how many of each.

    `limit` holds for each; of calls begun it bounds the rows, as a call may be long.
    """
    bodies = db.execute(
        """update events set body = null where serial in
             (select serial from events where state = 'done' and body is not null and delivered_at <= ?
              order by delivered_at limit ?)""",
        (now - body_age_s, limit),
    ).rowcount
    texts = _remove_texts(db, now - body_age_s, limit)
    settled = db.execute(
        """select call_sid from calls where created_at <= ? and not exists
             (select 1 from lanes where lanes.call_sid = calls.call_sid and head < next)
           order by created_at limit ?""",
        (now - call_age_s, limit),
    ).fetchall()
    rows = 0
    for (call_sid,) in settled:
        rows += db.execute(
            """delete from events where serial in
                 (select serial from lanes cross join events using (lane) where call_sid = ? limit ?)""",
            (call_sid, limit - rows),
        ).rowcount
        if rows >= limit:
            break
        _remove_call(db, call_sid)
        rows += 1
    owners.forget(db, now=now)
    return bodies, texts, rows


def _remove_texts(db: sqlite3.Connection, until: float, limit: int) -> int:
    """Remove the transcript, and who took part, of calls that ended until then; of how many calls."""
    ended = db.execute(
        "select call_sid from calls where ended and spoken and seen_at <= ? order by seen_at limit ?",
        (until, limit),
    ).fetchall()
    db.executemany("delete from lines where call_sid = ?", ended)
    db.executemany("update calls set spoken = 0, meta = x'' where call_sid = ?", ended)
    return len(ended)


def _remove_call(db: sqlite3.Connection, call_sid: str) -> None:
    endpoints = db.execute("select distinct endpoint from lanes where call_sid = ?", (call_sid,)).fetchall()
    for table in ("lanes", "watermarks", "lines", "calls"):
        db.execute(f"delete from {table} where call_sid = ?", (call_sid,))  # noqa: S608 - one of these four
    db.executemany(
        """delete from endpoints where endpoint = ?
             and not exists (select 1 from lanes where lanes.endpoint = endpoints.endpoint)""",
        endpoints,
    )
