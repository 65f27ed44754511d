"""What the bridge asks of an outbox about calls as such: which process has which, and who takes them over.

A node is one life of one process. It says that it lives with a `beat`; a call whose node is silent for too long
may be taken from it. Every taking raises the call's epoch, so whoever wakes up late is refused (`Fenced`).

Silence is counted while other nodes are heard: a store that is away makes nobody silent, and when nobody was heard
for 5 s, everybody's silence begins anew with the first beat. Who asks for silent nodes beats too, therefore.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bridge.outbox.lease import CallLease


@dataclass(frozen=True, slots=True)
class Known:
    """What the outbox knows of a call."""

    call_sid: str
    owner: str
    """Empty if its last owner let it go."""
    node: str
    """Of the owner; empty if it was let go, or taken without one."""
    silent_s: float
    """How long the node has been silent; infinite if it was never heard of, or if there is none."""
    heir: str
    """Who has its audio already, and waits for it, or did; empty if nobody does."""
    ended: bool
    """It has its `call.ended`, or was erased."""
    erased: bool
    meta: bytes


class Ownership(Protocol):
    """Who has which call. Every method may raise `OutboxDown`."""

    async def own_call(
        self, call_sid: str, owner: str, meta: bytes, *, node: str = "", only_from: str | None = None
    ) -> CallLease:
        """Take the call over from whoever had it: the epoch goes up by one.

        The first `meta` that is not empty stays, until `note` replaces it. With `only_from`, a known call is
        taken from that owner (or from `owner` itself) only: of those who take it from the same one, also from
        "", so from nobody, one gets it. Raises `Fenced` if somebody else has it. Without `node` it is an orphan.
        No heir is noted then: one who still waits asks again, and one who gave up must not be waited for. A call that has ended or was erased is taken too: see the lease.
        """

    async def note(self, lease: CallLease, meta: bytes) -> None:
        """Replace what is said of the call. Raises `Fenced` and `Erased`."""

    async def inherit(
        self, call_sid: str, heir: str, meta: bytes, *, node: str, silent_s: float
    ) -> CallLease | None:
        """Take the call over if its owner let it go, if it has none, or if its node is silent for `silent_s`.

        Until then None, and the owner learns of the heir from its next `beat`; the latest heir counts. `meta` is
        for a call that was not known, or of which nothing was said. A call that has ended or was erased has nobody
        at work on it, and so is taken at once: see the lease. Asked again by who has it already, it is taken again.
        """

    async def let_go(self, lease: CallLease) -> None:
        """Give the call up without an end, for an heir or for whoever finds it. Without effect for a newer owner.

        Until somebody takes it, the lease can still publish.
        """

    async def beat(self, node: str) -> Mapping[str, str]:
        """Say that a node lives. Returns the calls that it has and that have not ended, each with its heir or "".

        To be repeated every 2 s or so. An heir may have given up since it was noted.
        """

    async def died(self, node: str) -> None:
        """Say that a node is no more: its calls are orphans at once, and lanes that it has leased are due.

        It is for who knows it, as it started the node's process and saw it end. Without that, silence tells in time.
        """

    async def orphans(self, silent_s: float, limit: int) -> list[Known]:
        """Calls that have not ended and whose node is silent for `silent_s`, or that were let go; the oldest first.

        Calls that have no node are among them: those of a SQLite outbox's last process, and those that were taken by
        a version that knew no nodes.
        """

    async def known(self, call_sid: str) -> Known | None:
        """What is known of a call; None for one that never was, or is past its time."""

    async def spend(self, nonce: str, expires: float) -> bool:
        """Remember that a stream token was used, until it expires; False if it was used before."""
