"""What the bridge asks of an outbox: events kept in lanes of (endpoint, call) until they are delivered.

A publish is one transaction with the watermarks, so audio counts as finalised exactly when the
event that says so is durable. Ownership of calls and leases of lanes carry an epoch: whoever wakes
up late with an old one is refused (`Fenced`) and can cause a duplicate, never a loss or a reordering.
"""

import asyncio
import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bridge.errors import BridgeError


class OutboxDown(BridgeError):  # noqa: N818 - named for the state that it reports
    """The outbox cannot take or give anything now; nothing was changed, or it is not known to be."""


class OutboxFull(OutboxDown):
    """There is no room on the disk. Keep the audio, and publish again later."""


class Fenced(BridgeError):  # noqa: N818 - named for the state that it reports
    """The call or lane has a newer owner: stop working on it."""


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
class CallLease:
    """The right to publish for a call, and where its last owner stopped."""

    call_sid: str
    owner: str
    epoch: int
    next_sequence: int
    """Next to publish; 1 for a new call."""
    watermarks: Mapping[str, int]
    """Track -> position in samples at 8 kHz before which everything is finalised."""
    ended: bool


@dataclass(frozen=True, slots=True)
class LaneLease:
    """The right to deliver a lane's events, from `head` on."""

    lane: str
    endpoint: str
    call_sid: str
    epoch: int
    head: int
    attempts: int
    """Failed attempts of the head."""
    first_failure: float | None
    """Since when (seconds since 1970) no event of the lane was accepted; None: the last one was."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it lies in its lane."""

    lane: str
    sequence: int
    event_id: str
    type: str
    body: bytes
    created_at: float


@dataclass(frozen=True, slots=True)
class Stats:
    """What waits in the outbox."""

    pending: int
    oldest_age_s: float
    """Age of the oldest pending event; 0 when there is none."""
    lanes_in_backoff: int
    dead: int


class Outbox(Protocol):
    """The store behind publishing and delivery. Every method may raise `OutboxDown`."""

    wake: asyncio.Event
    """Set when a lane may have become claimable: after a publish, a retry, a release."""

    async def open(self) -> None:
        """Make ready. Raises `ConfigError` or `OutboxDown` with a sentence for people."""

    async def close(self) -> None:
        """Finish what was asked for, then let go of the store."""

    async def own_call(self, call_sid: str, owner: str, meta: bytes) -> CallLease:
        """Take the call over from whoever had it: the epoch goes up by one."""

    async def publish(
        self,
        lease: CallLease,
        events: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        ended: bool = False,
    ) -> None:
        """Store events and watermarks (samples) together; durable on return.

        Idempotent: an event that is stored already is success, since the outcome of a commit can be
        unknown. Watermarks never move back. Raises `Fenced`, `OutboxFull`, `OutboxDown`, and
        `ValueError` for a hole in a sequence or another event under a used sequence.
        """

    async def spend(self, nonce: str, expires: float) -> bool:
        """Remember that a stream token was used, until it expires; False if it was used before."""

    async def claim(
        self, owner: str, limit: int, lease_s: float, *, per_endpoint: int = 100
    ) -> list[LaneLease]:
        """Lease up to `limit` due lanes, with no endpoint above `per_endpoint` lanes of this owner."""

    async def peek(self, lane: LaneLease, limit: int = 20) -> list[Stored]:
        """The lane's next pending events in order. Raises `Fenced`."""

    async def ack(self, lane: LaneLease, sequence: int) -> None:
        """The event was accepted: the lane goes on, its lease is extended. Raises `Fenced`."""

    async def retry(
        self, lane: LaneLease, sequence: int, delay_s: float, status: int | None, error: str
    ) -> None:
        """The event was not accepted: give the lane back until `delay_s` from now. Raises `Fenced`."""

    async def bury(self, lane: LaneLease, sequence: int, reason: str) -> None:
        """Give the event up (dead letter); the lane goes on with the next. Raises `Fenced`."""

    async def release(self, lane: LaneLease) -> None:
        """Give the lane back, due at once if anything is pending. Without effect if it has a newer owner."""

    async def pause(self, endpoint: str, reason: str) -> None:
        """Claim no lane of the endpoint until the next `open`; its events are kept."""

    async def next_due(self) -> float | None:
        """Seconds (0 or more) until a lane becomes due, leased ones included; None if nothing is pending."""

    async def stats(self) -> Stats:
        """Count what waits."""


def endpoint_tag(endpoint: str) -> str:
    """A short name of an endpoint that may be logged, as its URL may hold secrets."""
    return base64.b32encode(hashlib.sha256(endpoint.encode()).digest()).decode().lower()[:16]


def lane_name(endpoint: str, call_sid: str) -> str:
    """The name of the lane of one call at one endpoint."""
    return f"{endpoint_tag(endpoint)}/{call_sid}"
