"""What the PostgreSQL outbox does for delivery: leases of lanes, and what became of their events.

`at` is the time in seconds since 1970, or None for the database's. Each function is one statement, which
commits by itself. A leased lane's `due_at` is the end of its lease, so a lane whose lease ran out is due again.
"""

from collections.abc import Collection, Mapping, Sequence

from bridge.outbox.lanes import LONGEST_WAIT_S
from bridge.outbox.lease import Fenced, LaneLease
from bridge.outbox.outbox import Stats, Stored
from bridge.outbox.postgresql.pool import Connection, as_json

_UNSURE = "set_config('synchronous_commit', 'off', true)"
"""Said in a statement, its commit waits for no disk and no standby. Lost with the server it is a duplicate, and once a
later publish is durable, so is it. Claims wait, as publishes do: what is posted is there after a failover."""


async def claim(
    connection: Connection,
    *,
    owner: str,
    limit: int,
    lease_s: float,
    each: int,
    room: Mapping[str, int],
    at: float | None,
) -> list[LaneLease]:
    """Lease due lanes; the cost grows with the endpoints that have any, not with what waits."""
    rows = await connection.fetch(
        "select * from whisper_bridge.claim($1, $2, $3, $4, $5, $6)",
        at,
        owner,
        limit,
        lease_s,
        each,
        as_json(room),
    )
    return [LaneLease(*row) for row in rows]


async def take(
    connection: Connection, *, heads: Mapping[str, int], owner: str, lease_s: float, at: float | None
) -> list[LaneLease]:
    """Lease those of these lanes that are due and have this head."""
    rows = await connection.fetch(
        f"""with taken as (
              update whisper_bridge.lanes
              set lease_by = $2, lease_s = $3, due_at = whisper_bridge.now($1) + $3::float8, epoch = epoch + 1
              where (lane, head) in (select key, value::bigint from jsonb_each_text($4))
                and head < next and due_at <= whisper_bridge.now($1)
                and exists (select from whisper_bridge.endpoints
                            where endpoints.endpoint = lanes.endpoint and paused is null)
              returning lane, endpoint, call_sid, epoch, head, attempts, first_failure)
            select taken.* from taken cross join {_UNSURE}""",  # noqa: S608 - a constant
        at,
        owner,
        lease_s,
        as_json(heads),
    )
    return [LaneLease(*row) for row in rows]


async def peek(connection: Connection, *, lane: LaneLease, limit: int) -> list[Stored]:
    """The lane's next events, from its head on."""
    rows = await connection.fetch(
        """select event.* from whisper_bridge.lanes left join lateral (
             select lane, position, sequence, event_id, type, body, created_at from whisper_bridge.events
             where events.lane = lanes.lane and position >= head order by position limit $3
           ) as event on true
           where lanes.lane = $1 and epoch = $2 and lease_by is not null order by position""",
        lane.lane,
        lane.epoch,
        limit,
    )
    if not rows:
        raise _fenced(lane)
    return [Stored(*row) for row in rows if row["lane"] is not None]


async def ack(connection: Connection, *, lane: LaneLease, position: int, at: float | None) -> bool:
    """The event was accepted; whether more is pending. The lane is free if not."""
    more: bool | None = await connection.fetchval(
        f"""with moved as (
              update whisper_bridge.lanes
              set head = head + 1, attempts = 0, first_failure = null, due_at = whisper_bridge.now($1) + lease_s,
                lease_by = case when head + 1 < next then lease_by end
              where lane = $2 and epoch = $3 and lease_by is not null and head = $4
              returning lane, head < next as more),
            told as (
              update whisper_bridge.events set state = 'done', delivered_at = whisper_bridge.now($1), tries = tries + 1
              from moved where events.lane = moved.lane and position = $4)
            select more, {_UNSURE} from moved""",  # noqa: S608 - a constant
        at,
        lane.lane,
        lane.epoch,
        position,
    )
    if more is None:
        raise _fenced(lane)
    return more


async def bury(
    connection: Connection,
    *,
    lane: LaneLease,
    position: int,
    status: int | None,
    reason: str,
    at: float | None,
) -> None:
    """The event is given up. `first_failure` stays: the next event meets the same outage."""
    moved = await connection.fetchval(
        """with moved as (
              update whisper_bridge.lanes set head = head + 1, attempts = 0, due_at = whisper_bridge.now($1) + lease_s
              where lane = $2 and epoch = $3 and lease_by is not null and head = $4 returning lane),
            told as (
              update whisper_bridge.events set state = 'dead', tries = tries + 1, last_status = $5, last_error = $6
              from moved where events.lane = moved.lane and position = $4)
            select 1 from moved""",
        at,
        lane.lane,
        lane.epoch,
        position,
        status,
        reason,
    )
    if not moved:
        raise _fenced(lane)


async def retry(
    connection: Connection,
    *,
    lane: LaneLease,
    position: int,
    delay_s: float,
    status: int | None,
    error: str,
    at: float | None,
) -> None:
    """The event was not accepted; the lane is free again and due in `delay_s`."""
    waiting = await connection.fetchval(
        f"""with waiting as (
              update whisper_bridge.lanes
              set attempts = attempts + 1, first_failure = coalesce(first_failure, whisper_bridge.now($1)),
                due_at = whisper_bridge.now($1) + $5::float8, lease_by = null
              where lane = $2 and epoch = $3 and lease_by is not null and head = $4 returning lane),
            told as (
              update whisper_bridge.events set tries = tries + 1, last_status = $6, last_error = $7
              from waiting where events.lane = waiting.lane and position = $4)
            select 1, {_UNSURE} from waiting""",  # noqa: S608 - a constant
        at,
        lane.lane,
        lane.epoch,
        position,
        delay_s,
        status,
        error,
    )
    if not waiting:
        raise _fenced(lane)


async def release(connection: Connection, *, lane: LaneLease, at: float | None) -> None:
    """The lane is free again, and due if anything is pending."""
    await connection.execute(
        f"""with freed as (
              update whisper_bridge.lanes set lease_by = null, due_at = whisper_bridge.now($1)
              where lane = $2 and epoch = $3 and lease_by is not null returning 1)
            select {_UNSURE} from freed""",  # noqa: S608 - a constant
        at,
        lane.lane,
        lane.epoch,
    )


async def pause(connection: Connection, *, endpoint: str, reason: str) -> None:
    """No lane of the endpoint is claimed until the next start of any bridge, or a replay."""
    await connection.execute(
        """insert into whisper_bridge.endpoints values ($1, $2)
           on conflict (endpoint) do update set paused = excluded.paused""",
        endpoint,
        reason,
    )


async def lock(connection: Connection, *, lanes: Sequence[str] = (), calls: Sequence[str] = ()) -> list[str]:
    """Lock these lanes, and all of these calls, in the one order that everybody keeps to; their names."""
    rows = await connection.fetch(
        """select lane from whisper_bridge.lanes where lane = any($1::text[]) or call_sid = any($2::text[])
           order by lane for update""",
        lanes,
        calls,
    )
    return [row["lane"] for row in rows]


async def next_due(connection: Connection, *, without: Collection[str], at: float | None) -> float | None:
    """Seconds until a lane becomes due, None if nothing is pending."""
    wait_s = await connection.fetchval(
        """select min(due_at) - whisper_bridge.now($1)
           from whisper_bridge.waiting join whisper_bridge.endpoints using (endpoint)
           where paused is null and endpoint <> all($2::text[])""",
        at,
        list(without),
    )
    return None if wait_s is None else max(0.0, wait_s)


async def mend(connection: Connection, *, limit: int, at: float | None) -> int:
    """Make up to `limit` lanes due that would wait for longer than any does, and end leases in time; how many.

    The clock was set back, or another server with another clock took over.
    """
    mended: int = await connection.fetchval(
        """with mended as (
             update whisper_bridge.lanes
             set due_at = whisper_bridge.now($1) + case when lease_by is null then 0 else lease_s end
             where lane in (
               select lane from whisper_bridge.lanes where head < next and due_at > whisper_bridge.now($1) + $2::float8
               limit $3 for update skip locked)
             returning 1)
           select count(*) from mended""",
        at,
        LONGEST_WAIT_S,
        limit,
    )
    return mended


async def stats(connection: Connection, *, at: float | None) -> Stats:
    """Count what waits; the cost grows with the lanes that wait. The oldest is the one that was stored first."""
    row = await connection.fetchrow(
        """select coalesce(sum(next - head), 0)::bigint as pending,
              greatest(0, coalesce(whisper_bridge.now($1) - (
                select created_at from whisper_bridge.events where state = 'pending' order by serial limit 1), 0)
              ) as oldest_age_s,
              count(*) filter (where attempts > 0) as lanes_in_backoff,
              (select count(*) from whisper_bridge.events where state = 'dead') as dead,
              (select count(*) from whisper_bridge.endpoints where paused is not null) as paused
            from whisper_bridge.lanes where head < next""",
        at,
    )
    return Stats(*row)


def _fenced(lane: LaneLease) -> Fenced:
    return Fenced(f"The lane {lane.lane} has a newer owner.")
