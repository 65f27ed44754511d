"""What the PostgreSQL outbox removes because it is past its time: bodies, then whole calls, and nodes.

`at` is the time in seconds since 1970, or None for the database's. Each bite is a transaction of its own.
"""

from bridge.outbox.postgresql.lanes import lock, mend
from bridge.outbox.postgresql.owners import forget
from bridge.outbox.postgresql.pool import Connection

_FOREIGN_KEY = "23503"


async def purge(
    connection: Connection, *, body_age_s: float, call_age_s: float, limit: int, at: float | None
) -> bool:
    """Remove bodies delivered, and calls begun, so long ago; whether there may be more.

    `limit` holds for the bodies, for the calls, and again for the calls' events, as a call may be long. What
    waits since before the clock was set back is past its time too: it becomes due.
    """
    mended = await mend(connection, limit=limit, at=at)
    bodies = await connection.fetchval(
        """with bare as (
              update whisper_bridge.events set body = null where serial in (
                select serial from whisper_bridge.events
                where state = 'done' and body is not null and delivered_at <= whisper_bridge.now($1) - $2::float8
                order by delivered_at limit $3 for update skip locked)
              returning 1)
            select count(*) from bare""",
        at,
        body_age_s,
        limit,
    )
    texts = await connection.fetchval(
        """with ended as (
              select call_sid from whisper_bridge.calls
              where ended and spoken and seen_at <= whisper_bridge.now($1) - $2::float8
                and created_at <= whisper_bridge.now($1) - $2::float8
              order by created_at limit $3 for update skip locked),
            gone as (delete from whisper_bridge.lines using ended where lines.call_sid = ended.call_sid),
            silent as (
              update whisper_bridge.calls set spoken = false, meta = '' from ended
              where calls.call_sid = ended.call_sid returning 1)
            select count(*) from silent""",
        at,
        body_age_s,
        limit,
    )
    async with connection.transaction():
        calls = await _lock_old_calls(connection, call_age_s, limit, at)
        events, endpoints = await _remove(connection, calls, limit) if calls else (0, [])
    await _forget(connection, endpoints)
    await forget(connection, at=at)
    return limit in (mended, bodies, texts, len(calls), events)


async def _lock_old_calls(
    connection: Connection, call_age_s: float, limit: int, at: float | None
) -> list[str]:
    rows = await connection.fetch(
        """select call_sid from whisper_bridge.calls where created_at <= whisper_bridge.now($1) - $2::float8 and not exists
              (select from whisper_bridge.lanes where lanes.call_sid = calls.call_sid and head < next)
            order by created_at limit $3 for update skip locked""",
        at,
        call_age_s,
        limit,
    )
    # Seen again now that nobody can replay any more: what came before the lock may not have been visible.
    pending = await connection.fetch(
        "select call_sid from whisper_bridge.lanes where call_sid = any($1::text[]) and head < next",
        [row["call_sid"] for row in rows],
    )
    busy = {row["call_sid"] for row in pending}
    return [row["call_sid"] for row in rows if row["call_sid"] not in busy]


async def _remove(connection: Connection, calls: list[str], limit: int) -> tuple[int, list[str]]:
    """Remove the calls' events, up to `limit`, and each call whose last one that was; how many, and its endpoints."""
    await lock(connection, calls=calls)
    events = await connection.fetchval(
        """with gone as (
             delete from whisper_bridge.events where serial in (
               select serial from unnest($1::text[]) with ordinality as old (call_sid, place)
               join whisper_bridge.lanes using (call_sid) join whisper_bridge.events using (lane)
               order by place limit $2)
             returning 1)
           select count(*) from gone""",
        calls,
        limit,
    )
    lanes = await connection.fetch(
        """delete from whisper_bridge.lanes where call_sid = any($1::text[]) and not exists
             (select from whisper_bridge.events where events.lane = lanes.lane)
           returning endpoint""",
        calls,
    )
    empty = await connection.fetch(
        """delete from whisper_bridge.calls where call_sid = any($1::text[]) and not exists
             (select from whisper_bridge.lanes where lanes.call_sid = calls.call_sid)
           returning call_sid""",
        calls,
    )
    for table in ("watermarks", "lines"):
        await connection.execute(
            f"delete from whisper_bridge.{table} where call_sid = any($1::text[])",  # noqa: S608 - one of these two
            [row["call_sid"] for row in empty],
        )
    return events, sorted({row["endpoint"] for row in lanes})


async def _forget(connection: Connection, endpoints: list[str]) -> None:
    """Remove endpoints that have no lane."""
    for endpoint in endpoints:
        try:
            await connection.execute(
                """delete from whisper_bridge.endpoints where endpoint = $1 and not exists
                     (select from whisper_bridge.lanes where lanes.endpoint = endpoints.endpoint)""",
                endpoint,
            )
        except Exception as error:
            if getattr(error, "sqlstate", None) != _FOREIGN_KEY:  # it has a lane again
                raise
