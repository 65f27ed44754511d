"""What the PostgreSQL outbox does for the owner of a call: events, watermarks, lines, and spent tokens.

`at` is the time in seconds since 1970, or None for the database's. One round trip and one commit each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any

from bridge.outbox.lease import CallLease, LaneLease
from bridge.outbox.outbox import Line, Outgoing, lane_name
from bridge.outbox.postgresql.lanes import take
from bridge.outbox.postgresql.owners import refusal
from bridge.outbox.postgresql.pool import Connection, as_json

REFUSED = "WB001"
"""The SQLSTATE of a hole in a sequence, or of another event under a used one, in schema.sql."""

SWEEP = 100
"""Expired tokens that are removed for each one that is spent."""


async def publish(
    connection: Connection,
    *,
    lease: CallLease,
    events: Sequence[Outgoing],
    watermarks: Mapping[str, int],
    lines: Sequence[Line],
    ended: bool,
    deliverer: str,
    lease_s: float,
    at: float | None,
) -> list[LaneLease]:
    """Store all of it, unless the call has a newer owner (`Fenced`) or was erased (`Erased`).

    With a `deliverer`, it gets the lanes that are due and whose first event is one of these: a second statement,
    which commits by itself, in the place of a claim and a peek.
    """
    stored = [_stored(lease.call_sid, event) for event in events]
    stored.sort(key=itemgetter("lane"))  # who locks several lanes does so in this order
    try:
        refused = await connection.fetchval(
            "select whisper_bridge.publish($1, $2, $3, $4, $5, $6, $7)",
            at,
            lease.call_sid,
            lease.epoch,
            ended,
            as_json(stored),
            as_json(watermarks),
            as_json([_without_nul(line) for line in lines]),
        )
    except Exception as error:
        if getattr(error, "sqlstate", None) == REFUSED:
            raise ValueError(str(error)) from None
        raise
    if refused:
        raise refusal(lease.call_sid, erased=refused == "erased")
    heads: dict[str, int] = {}
    for event in stored:
        heads.setdefault(event["lane"], event["sequence"])
    if not deliverer or not heads:
        return []
    return await take(connection, heads=heads, owner=deliverer, lease_s=lease_s, at=at)


async def transcript(connection: Connection, *, call_sid: str) -> list[Line]:
    """The lines stored of a call."""
    rows = await connection.fetch(
        """select number, track, start_ms, end_ms, text from whisper_bridge.lines
           where call_sid = $1 order by number""",
        call_sid,
    )
    return [Line(*row) for row in rows]


async def spend(connection: Connection, *, nonce: str, expires: float, at: float | None) -> bool:
    """Remember a stream token's nonce until it expires; False if it is known."""
    spent = await connection.fetchval(
        """with swept as (
              delete from whisper_bridge.spent where nonce in (
                select nonce from whisper_bridge.spent where expires <= whisper_bridge.now($1) and nonce <> $2
                order by expires limit $4 for update skip locked))
            insert into whisper_bridge.spent as known values ($2, $3)
            on conflict (nonce) do update set expires = excluded.expires where known.expires <= whisper_bridge.now($1)
            returning 1""",
        at,
        nonce,
        expires,
        SWEEP,
    )
    return spent is not None


def _stored(call_sid: str, event: Outgoing) -> dict[str, Any]:
    return {
        "lane": lane_name(event.endpoint, call_sid),
        "endpoint": event.endpoint,
        "sequence": event.sequence,
        "event_id": event.event_id,
        "type": event.type,
        "body": event.body.hex(),
    }


def _without_nul(line: Line) -> Line:
    """PostgreSQL has texts without it only; nobody said it."""
    return replace(line, text=line.text.replace("\0", "")) if "\0" in line.text else line
