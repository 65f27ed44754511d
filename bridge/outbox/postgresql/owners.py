"""What the PostgreSQL outbox does about who has which call: takings, heirs, nodes and orphans.

`at` is the time in seconds since 1970, or None for the database's. One round trip and one commit each.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from bridge.outbox.lease import CallLease, Erased, Fenced
from bridge.outbox.owners import FORGOTTEN_S
from bridge.outbox.ownership import Known
from bridge.outbox.postgresql.pool import Connection

_KNOWN = """select call_sid, owner, node,
       greatest(0, coalesce(whisper_bridge.newest($1) - nodes.seen_at, 'infinity')) as silent_s,
       heir, ended, erased, meta
     from whisper_bridge.calls left join whisper_bridge.nodes using (node)"""


async def own(
    connection: Connection,
    *,
    call_sid: str,
    owner: str,
    meta: bytes,
    node: str,
    only_from: str | None,
    at: float | None,
) -> CallLease:
    """Take the call over: the epoch goes up by one. Raises `Fenced` if it is not `only_from`'s to take."""
    lease = await _take(connection, at, call_sid, owner, meta, only_from, node, None)
    if lease is None:
        raise Fenced.call(call_sid)
    return lease


async def inherit(
    connection: Connection,
    *,
    call_sid: str,
    heir: str,
    meta: bytes,
    node: str,
    silent_s: float,
    at: float | None,
) -> CallLease | None:
    """Take the call over if nobody is at work on it; else its owner learns of the heir, and None."""
    return await _take(connection, at, call_sid, heir, meta, None, node, silent_s)


async def note(connection: Connection, *, lease: CallLease, meta: bytes, at: float | None) -> None:
    """Replace what is said of the call."""
    noted = await connection.fetchval(
        """with noted as (
             update whisper_bridge.calls
             set meta = $4::bytea, spoken = spoken or length($4::bytea) > 0, seen_at = whisper_bridge.now($1)
             where call_sid = $2 and epoch = $3 and not erased returning 1)
           select coalesce((select 'noted' from noted),
                           (select 'erased' from whisper_bridge.calls where call_sid = $2 and erased))""",
        at,
        lease.call_sid,
        lease.epoch,
        meta,
    )
    if noted != "noted":
        raise refusal(lease.call_sid, erased=noted == "erased")


async def let_go(connection: Connection, *, lease: CallLease) -> None:
    """Leave the call to whoever takes it next."""
    await connection.execute(
        "update whisper_bridge.calls set owner = '', node = '' where call_sid = $1 and epoch = $2",
        lease.call_sid,
        lease.epoch,
    )


async def beat(connection: Connection, *, node: str, at: float | None) -> Mapping[str, str]:
    """Say that a node lives; its open calls, each with its heir."""
    rows = await connection.fetch("select * from whisper_bridge.beat($1, $2)", at, node)
    return dict(rows)


async def died(connection: Connection, *, node: str, at: float | None) -> None:
    """The node is no more: nobody was ever less heard of, and its lanes are free and due. It goes through all lanes."""
    await connection.execute(
        """with gone as (delete from whisper_bridge.nodes where node = $2)
           update whisper_bridge.lanes set lease_by = null, due_at = whisper_bridge.now($1) where lane in (
             select lane from whisper_bridge.lanes where lease_by = $2 order by lane for update)""",
        at,
        node,
    )


async def orphans(connection: Connection, *, silent_s: float, limit: int, at: float | None) -> list[Known]:
    """Open calls that nobody is at work on, the oldest first."""
    rows = await connection.fetch(
        f"""{_KNOWN} where call_sid in (
              select oldest.call_sid from whisper_bridge.silent($1, $2) as silent cross join lateral (
                select call_sid, created_at from whisper_bridge.calls
                where node = silent and not ended order by created_at, call_sid limit $3) as oldest
              order by created_at, call_sid limit $3)
            order by created_at, call_sid""",  # noqa: S608 - constants
        at,
        silent_s,
        limit,
    )
    return [Known(*row) for row in rows]


async def known(connection: Connection, *, call_sid: str, at: float | None) -> Known | None:
    """What is known of the call."""
    row = await connection.fetchrow(f"{_KNOWN} where call_sid = $2", at, call_sid)
    return Known(*row) if row else None


async def forget(connection: Connection, *, at: float | None) -> None:
    """Remove nodes that are of no interest any more. None was seen in the future: the clock was set back."""
    await connection.execute(
        """update whisper_bridge.nodes set seen_at = whisper_bridge.now($1) where node in (
             select node from whisper_bridge.nodes where seen_at > whisper_bridge.now($1) for update skip locked)""",
        at,
    )
    await connection.execute(
        """delete from whisper_bridge.nodes where node in (
             select node from whisper_bridge.nodes
             where seen_at <= whisper_bridge.now($1) - $2::float8 and not exists (
               select from whisper_bridge.calls where calls.node = nodes.node and not ended)
             for update skip locked)""",
        at,
        FORGOTTEN_S,
    )


def refusal(call_sid: str, *, erased: bool) -> Fenced:
    """Why a lease of the call is of no use any more."""
    return Erased(f"The call {call_sid} was erased.") if erased else Fenced.call(call_sid)


async def _take(connection: Connection, *arguments: Any) -> CallLease | None:
    row = await connection.fetchrow(
        "select * from whisper_bridge.own_call($1, $2, $3, $4, $5, $6, $7)", *arguments
    )
    epoch, following, watermarks, ended, erased, known = row
    if epoch is None:
        return None
    _, call_sid, owner, *_ = arguments
    return CallLease(call_sid, owner, epoch, following, msgspec.json.decode(watermarks), ended, erased, known)
