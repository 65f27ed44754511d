"""What the PostgreSQL outbox does for operators: listings, replays, erasure, and what is past its time.

`at` is the time in seconds since 1970, or None for the database's. What may be much is done in several bites,
each in its own transaction: none takes long, and whoever it locked out goes on in between. Replay, erasure
and removal exclude each other by the rows of the calls, which they lock before any lane.
"""

from collections.abc import Collection, Sequence
from typing import Any

from bridge.outbox.lease import REPLAY
from bridge.outbox.outbox import Record, Selection, State, endpoint_tag, lane_name
from bridge.outbox.postgresql.lanes import lock
from bridge.outbox.postgresql.pool import Connection, as_json
from bridge.outbox.postgresql.selection import ANY, indexed, where

SCAN = 100_000
"""Events that one statement goes through where no index helps: some 100 ms."""

BITE = 500
"""Events that one transaction moves, or lanes that it makes due."""

_DEAD: frozenset[State] = frozenset(("dead",))
_SETTLED: frozenset[State] = frozenset(("dead", "done"))
_EVENTS = "whisper_bridge.events join whisper_bridge.lanes using (lane)"


async def records(
    connection: Connection, *, selection: Selection, limit: int, before: int | None
) -> list[Record]:
    """Selected events, the last stored first."""
    found: list[Record] = []
    states = selection.states or ANY
    terms, values = where(selection, states, await _named(connection, selection), first=3)
    high = await _end(connection)
    high = high if before is None else min(high, before)
    while high > 1 and len(found) < limit:
        low = 1 if indexed(selection, states) else max(1, high - SCAN)
        rows = await connection.fetch(
            f"""select serial, event_id, endpoint, call_sid, sequence, type, state, lane like '%{REPLAY}',
                  body is not null, encode(sha256, 'hex'), created_at, delivered_at, tries, last_status,
                  last_error, case when state = 'pending' and position = head then due_at end
                from {_EVENTS} where serial >= $1 and serial < $2 and {terms}
                order by serial desc limit {limit - len(found)}""",  # noqa: S608 - the values are arguments
            low,
            high,
            *values,
        )
        found += [Record(*row) for row in rows]
        high = low
    return found


async def replay(connection: Connection, *, selection: Selection, at: float | None) -> int:
    """Make selected pending events due, and move settled ones into their calls' lanes of replays; how many."""
    end = await _end(connection)  # what is stored from now on is no part of this
    count = 0
    if not selection.states or "pending" in selection.states:
        count = await _hasten(connection, selection, at)
    named = await _named(connection, selection)
    await _resume(connection, named or ())
    states = (selection.states or _DEAD) & _SETTLED
    terms, values = where(selection, states, named, first=3)
    first = 1
    while states and first < end:
        high = end if indexed(selection, states) else min(end, first + SCAN)
        rows = await connection.fetch(
            f"""select serial, endpoint, call_sid from {_EVENTS}
                where serial >= $1 and serial < $2 and {terms} and body is not null
                order by serial limit {BITE}""",  # noqa: S608 - as above
            first,
            high,
            *values,
        )
        if rows:
            count += await _move(connection, rows, states, at)
        first = rows[-1]["serial"] + 1 if len(rows) == BITE else high
    return count


async def erase(connection: Connection, *, call_sid: str) -> int:
    """Remove the bodies of a call, and fence off who owns or delivers it; how many bodies."""
    async with connection.transaction():
        # Written even if it was erased before: then an answer means that the standby knows of it too.
        await connection.execute(
            """update whisper_bridge.calls
               set erased = true, ended = true, spoken = false, epoch = epoch + 1, meta = '' where call_sid = $1""",
            call_sid,
        )
        await connection.execute("delete from whisper_bridge.lines where call_sid = $1", call_sid)
        lanes = await lock(connection, calls=[call_sid])
        await connection.execute(
            """update whisper_bridge.lanes
               set head = next, attempts = 0, first_failure = null, lease_by = null, epoch = epoch + 1
               where lane = any($1::text[])""",
            lanes,
        )
        erased: int = await connection.fetchval(
            """with erased as (
                 update whisper_bridge.events
                 set body = null, state = case state when 'pending' then 'erased' else state end
                 where lane = any($1::text[]) and body is not null returning 1)
               select count(*) from erased""",
            lanes,
        )
    return erased


async def _hasten(connection: Connection, selection: Selection, at: float | None) -> int:
    """Lanes of selected pending events become due, their endpoints are paused no more; how many events."""
    named = await _named(connection, selection)
    terms, values = where(selection, {"pending"}, named, first=2)
    last = ""
    count: int = 0
    while True:
        bite = await _waiting(connection, selection, last)
        selected = await connection.fetch(
            f"""select lane, endpoint, events from whisper_bridge.lanes cross join lateral (
                  select count(*) as events from whisper_bridge.events
                  where events.lane = lanes.lane and {terms}) as selected
                where lane = any($1::text[]) and events > 0""",  # noqa: S608 - as above
            bite,
            *values,
        )
        if selected:
            async with connection.transaction():
                lanes = await lock(connection, lanes=[row["lane"] for row in selected])
                await _make_due(connection, lanes, at)
                await _resume(connection, {row["endpoint"] for row in selected})
        count += sum(row["events"] for row in selected)
        if len(bite) < BITE:
            return count
        last = bite[-1]


async def _waiting(connection: Connection, selection: Selection, last: str) -> list[str]:
    """Up to `BITE` lanes by name, from the one after `last` on, that may have selected pending events."""
    term, values = "true", []
    if selection.event_ids:
        term = "lane in (select lane from whisper_bridge.events where event_id = any($2::text[]))"
        values = [list(selection.event_ids)]
    elif selection.call_sid:
        term, values = "call_sid = any($2::text[])", [[selection.call_sid]]
    rows = await connection.fetch(
        f"select lane from whisper_bridge.lanes where head < next and lane > $1 and {term} order by lane limit {BITE}",  # noqa: S608 - as above
        last,
        *values,
    )
    return [row["lane"] for row in rows]


async def _move(
    connection: Connection, rows: Sequence[Any], states: Collection[State], at: float | None
) -> int:
    """Move events, unless they or their calls have changed meanwhile; how many."""
    async with connection.transaction():
        calls = {
            row["call_sid"]
            for row in await connection.fetch(
                """select call_sid from whisper_bridge.calls where call_sid = any($1::text[]) and not erased
                   order by call_sid for share""",
                [row["call_sid"] for row in rows],
            )
        }
        chosen = [
            {
                "serial": row["serial"],
                "lane": lane_name(row["endpoint"], row["call_sid"]) + REPLAY,
                "endpoint": row["endpoint"],
                "call_sid": row["call_sid"],
            }
            for row in rows
            if row["call_sid"] in calls
        ]
        await connection.execute(
            """insert into whisper_bridge.lanes (lane, endpoint, call_sid, due_at)
               select distinct on (lane) lane, endpoint, call_sid, whisper_bridge.now($1)
               from json_to_recordset($2) as wanted (lane text, endpoint text, call_sid text) order by lane
               on conflict do nothing""",
            at,
            as_json(chosen),
        )
        targets = await lock(connection, lanes=[each["lane"] for each in chosen])
        moved: int = await connection.fetchval(
            """with chosen as (
                 select events.serial, wanted.lane
                 from json_to_recordset($1) as wanted (serial bigint, lane text)
                 join whisper_bridge.events on events.serial = wanted.serial
                 where state = any($2::text[]) and body is not null for update of events),
               placed as (
                 select serial, lane, row_number() over (partition by lane order by serial) as place from chosen),
               moved as (
                 update whisper_bridge.events
                 set lane = placed.lane, position = lanes.next - 1 + place, state = 'pending', delivered_at = null
                 from placed join whisper_bridge.lanes using (lane)
                 where events.serial = placed.serial returning events.lane),
               longer as (
                 update whisper_bridge.lanes set next = next + added.events
                 from (select lane, count(*) as events from moved group by lane) as added
                 where lanes.lane = added.lane)
               select count(*) from moved""",
            as_json(chosen),
            list(states),
        )
        await _make_due(connection, targets, at)
        await _resume(connection, {each["endpoint"] for each in chosen})
    return moved


async def _make_due(connection: Connection, lanes: list[str], at: float | None) -> None:
    await connection.execute(
        """update whisper_bridge.lanes set due_at = whisper_bridge.now($1), attempts = 0, first_failure = null
            where lane = any($2::text[]) and lease_by is null""",
        at,
        lanes,
    )


async def _resume(connection: Connection, endpoints: Collection[str]) -> None:
    # A key's lock would wait for every new lane of the endpoint, as each holds its key.
    await connection.execute(
        """update whisper_bridge.endpoints set paused = null where endpoint in (
             select endpoint from whisper_bridge.endpoints where endpoint = any($1::text[]) and paused is not null
             order by endpoint for no key update)""",
        list(endpoints),
    )


async def _end(connection: Connection) -> int:
    """One more than the serial of the last event."""
    end: int = await connection.fetchval("select coalesce(max(serial), 0) + 1 from whisper_bridge.events")
    return end


async def _named(connection: Connection, selection: Selection) -> list[str] | None:
    """The endpoints of the selection's URL or tag: at most one; None: it names none."""
    if not selection.endpoint:
        return None
    rows = await connection.fetch("select endpoint from whisper_bridge.endpoints")
    names = [row["endpoint"] for row in rows]
    return [name for name in names if selection.endpoint in (name, endpoint_tag(name))]
