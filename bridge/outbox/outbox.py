"""What the bridge asks of an outbox: events kept in lanes of (endpoint, call) until they are delivered.

A publish is one transaction with the watermarks, so audio counts as finalised exactly when the
event that says so is durable. Ownership of calls and leases of lanes carry an epoch: whoever wakes
up late with an old one is refused (`Fenced`) and can cause a duplicate, never a loss or a reordering.
"""

import asyncio
import base64
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bridge.errors import BridgeError
from bridge.outbox.attachments import Attachments
from bridge.outbox.lease import CallLease, LaneLease
from bridge.outbox.ownership import Ownership


class OutboxDown(BridgeError):  # noqa: N818 - named for the state that it reports
    """The outbox cannot take or give anything now; nothing was changed, or it is not known to be."""


class OutboxHeld(OutboxDown):
    """Another process of this machine has it, and only one can."""


class OutboxFull(OutboxDown):
    """There is no room on the disk. Keep the audio, and publish again later."""


State = Literal["pending", "done", "dead", "erased"]
"""Of an event: waits, was accepted, was given up (dead letter), or was erased before it was accepted."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event on its way to one endpoint."""

    endpoint: str
    """Webhook URL: the endpoint's identity."""
    sequence: int
    """1, 2, 3 ... per (endpoint, call)."""
    event_id: str
    type: str
    body: bytes
    """The exact bytes of every attempt."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was said, as the transcript of the whole call has it."""

    number: int
    """1, 2, 3 ... per call: makes a repeat harmless."""
    track: str
    start_ms: int
    """On the call's clock."""
    end_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it lies in its lane."""

    lane: str
    position: int
    """In the lane: 1, 2, 3 ..."""
    sequence: int
    """In the call, as its body has it; the position too, unless the lane is one of replays."""
    event_id: str
    type: str
    body: bytes
    created_at: float


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events an operator means: those that all of these are true of."""

    event_ids: tuple[str, ...] = ()
    call_sid: str = ""
    endpoint: str = ""
    """A webhook URL, or its `endpoint_tag`."""
    states: frozenset[State] = frozenset()
    """Empty: any."""
    since: float | None = None
    """Stored at that time or later, seconds since 1970."""
    until: float | None = None
    """Stored before that time."""


@dataclass(frozen=True, slots=True)
class Record:
    """What an operator is shown of an event."""

    serial: int
    """Grows with every event that is stored: the place in a listing."""
    event_id: str
    endpoint: str
    call_sid: str
    sequence: int
    type: str
    state: State
    replay: bool
    """It is, or was, delivered again on request."""
    kept: bool
    """Its body is still stored, so it can be delivered again."""
    sha256: str
    """Of the body, in hexadecimal: kept when the body is not."""
    created_at: float
    delivered_at: float | None
    tries: int
    last_status: int | None
    last_error: str | None
    due_at: float | None
    """When it is tried next, if it is the head of its lane; else None."""


@dataclass(frozen=True, slots=True)
class Stats:
    """What waits in the outbox."""

    pending: int
    oldest_age_s: float
    """Age of the oldest pending event, or of the first stored of them; 0 when there is none."""
    lanes_in_backoff: int
    dead: int
    paused: int = 0
    """Endpoints that answered 410, and were not named by a replay since."""


class Outbox(Ownership, Attachments, Protocol):
    """The store behind publishing and delivery. Every method may raise `OutboxDown`."""

    wake: asyncio.Event
    """Set when a lane may have become claimable: after a publish that leased none, a retry, a release, a replay."""
    poll_s: float
    """How often to look for lanes that became claimable without this process doing it; 60 s if none do."""

    async def open(self) -> None:
        """Make ready. Raises `ConfigError` or `OutboxDown` with a sentence for people."""

    async def close(self) -> None:
        """Finish what was asked for, then let go of the store."""

    async def publish(
        self,
        lease: CallLease,
        events: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        lines: Sequence[Line] = (),
        ended: bool = False,
        deliverer: str = "",
        lease_s: float = 0.0,
    ) -> list[LaneLease]:
        """Store events, lines of the transcript and watermarks (samples) together; durable on return.

        With a `deliverer`, lanes of these events that are due with the first of them as their head are leased to
        it for `lease_s`, as by `claim`, and these leases returned: it need not ask for what it has just stored.

        Idempotent: an event that is stored already is success, since the outcome of a commit can be
        unknown. Watermarks never move back. Raises `Fenced`, `Erased`, `OutboxFull`, `OutboxDown`, and
        `ValueError` for a hole in a sequence or another event under a used sequence.
        """

    async def transcript(self, call_sid: str) -> list[Line]:
        """The lines stored of a call, in the order of their numbers; none if they are past their time or erased."""

    async def claim(
        self,
        owner: str,
        limit: int,
        lease_s: float,
        *,
        each: int = 100,
        room: Mapping[str, int] | None = None,
    ) -> list[LaneLease]:
        """Lease up to `limit` due lanes, of an endpoint `room[endpoint]` or else `each`: live before failed before replays, each longest due first."""

    async def peek(self, lane: LaneLease, limit: int = 20) -> list[Stored]:
        """The lane's next pending events in order. Raises `Fenced`."""

    async def ack(self, lane: LaneLease, position: int) -> bool:
        """The event was accepted: the lane goes on, its lease is extended. Raises `Fenced`.

        Returns whether more is pending; if not, the lane is given back.
        """

    async def retry(
        self, lane: LaneLease, position: int, delay_s: float, status: int | None, error: str
    ) -> None:
        """The event was not accepted: give the lane back until `delay_s` from now. Raises `Fenced`."""

    async def bury(self, lane: LaneLease, position: int, status: int | None, reason: str) -> None:
        """Give the event up (dead letter); the lane goes on with the next. Raises `Fenced`."""

    async def release(self, lane: LaneLease) -> None:
        """Give the lane back, due at once if anything is pending. Without effect if it has a newer owner."""

    async def pause(self, endpoint: str, reason: str) -> None:
        """Claim no lane of the endpoint until a replay names it or the next `open`; its events are kept."""

    async def next_due(self, *, without: Collection[str] = ()) -> float | None:
        """Seconds (0 or more) until a lane becomes due, leased ones included; None if nothing is pending.

        Paused endpoints do not count, nor those in `without`.
        """

    async def records(self, selection: Selection, limit: int, *, before: int | None = None) -> list[Record]:
        """Selected events, the last stored first; with `before`, those of smaller `serial`."""

    async def replay(self, selection: Selection) -> int:
        """Deliver selected events again, with the same id and bytes; how many.

        Dead ones go through their call's lane of replays, in the order of their call, so that nothing live
        waits for them; delivered ones too if the selection names that state, and as far as their bodies are
        kept. Lanes with a selected event that is still pending become due at once. Endpoints of what is
        selected, or named in `selection`, are paused no more.
        """

    async def erase(self, call_sid: str) -> int:
        """Remove the text of a call: its lines and events' bodies. Deliver none, take no more; how many bodies.

        The hashes stay. Whoever owns the call is `Erased` at its next publish. A large SQLite file is written
        anew for it, which holds up publishes for some seconds.
        """

    async def purge(self, *, body_age_s: float, call_age_s: float, limit: int = 500) -> bool:
        """Remove up to `limit` bodies delivered `body_age_s` ago, and calls that began `call_age_s` ago.

        The lines of a call go `body_age_s` after its end. A call goes with its rows and dead letters, but not
        while anything of it is pending. `limit` holds for each kind. Returns whether there may be more.
        """

    async def stats(self) -> Stats:
        """Count what waits."""


def endpoint_tag(endpoint: str) -> str:
    """A short name of an endpoint that may be logged, as its URL may hold secrets."""
    return base64.b32encode(hashlib.sha256(endpoint.encode()).digest()).decode().lower()[:16]


def lane_name(endpoint: str, call_sid: str) -> str:
    """The name of the lane of one call at one endpoint."""
    return f"{endpoint_tag(endpoint)}/{call_sid}"
