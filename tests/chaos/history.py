"""Judges a whole run: what the producers were told is stored, against all that the receiver got."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from bridge.local.deliveries import judge
from bridge.local.receiver import Received

TIMESTAMP_S = 5.0
"""Between a signature's timestamp and the request's arrival: a receiver refuses what is much older."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """An event whose publish returned: from here on it must not be lost."""

    call_sid: str
    sequence: int
    event_id: str
    sha256: str
    """Of the body, in hexadecimal."""


@dataclass(slots=True)
class History:
    """The verdict; `problems` is empty when every promise was kept."""

    acknowledged: int = 0
    delivered: int = 0
    """Distinct events that the receiver accepted: also some whose publish never returned."""
    lost: int = 0
    """Acknowledged, but never accepted."""
    out_of_order: int = 0
    holes: int = 0
    """Never accepted, though a later one of the call was tried."""
    duplicates: int = 0
    """Requests for an event that had been accepted before."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {self.delivered} delivered, {self.duplicates} duplicates, "
            f"lost {self.lost}, out of order {self.out_of_order}, holes {self.holes}"
        )

    def require(self) -> None:
        """Raise an `AssertionError` that begins with the figures, unless every promise was kept."""
        shown = " ".join(self.problems[:3])
        assert not self.problems, f"{self}. {len(self.problems)} problems: {shown}"


def check(
    acknowledged: Iterable[Acknowledged], received: Sequence[Received], *, kills: Sequence[int] | None = None
) -> History:
    """Go through the requests to one endpoint in order of arrival; the calls have not ended.

    With `kills` given, places in `received` before which the only sender was killed, a call may have one
    duplicate for each: the event that was under way.
    """
    verdict = judge(received, finished=False)
    history = History(
        out_of_order=verdict.out_of_order,
        holes=verdict.missing,
        duplicates=verdict.duplicates,
        problems=list(verdict.problems),
    )
    accepted = {one.webhook_id: one for one in received if one.accepted}
    history.delivered = len(accepted)
    for event in acknowledged:
        history.acknowledged += 1
        _look_up(event, accepted.get(event.event_id), history)
    _check_identities(received, history)
    for one in received:
        _check_signature(one, history)
    if kills is not None:
        _check_duplicates(received, kills, history)
    return history


def _look_up(event: Acknowledged, got: Received | None, history: History) -> None:
    where = f"{event.call_sid}: event {event.sequence}"
    if got is None:
        history.lost += 1
        history.problems.append(f"{where} was acknowledged and never accepted.")
    elif sha256(got.body).hexdigest() != event.sha256:
        history.problems.append(f"{where} came with another body than was acknowledged.")
    elif (got.call_sid, got.data.get("sequence")) != (event.call_sid, event.sequence):
        history.problems.append(f"{where} came as another event.")


def _check_identities(received: Sequence[Received], history: History) -> None:
    """Each place in a call has one id, and each id one place."""
    places: dict[str, tuple[str, object]] = {}
    ids: dict[tuple[str, object], str] = {}
    for one in received:
        place = one.call_sid, one.data.get("sequence")
        if places.setdefault(one.webhook_id, place) != place:
            history.problems.append(f"{one.webhook_id} stands under two sequences.")
        if ids.setdefault(place, one.webhook_id) != one.webhook_id:
            history.problems.append(f"{one.call_sid}: sequence {place[1]} has two ids.")


def _check_signature(one: Received, history: History) -> None:
    where = f"{one.call_sid}: event {one.data.get('sequence')}"
    if not one.verified:
        history.problems.append(f"{where} came with a signature that is not valid.")
        return
    apart_s = one.received_at - float(one.headers["webhook-timestamp"])
    if not -1 <= apart_s <= TIMESTAMP_S:
        history.problems.append(f"{where} came {apart_s:.1f} s after its signature's timestamp.")


def _check_duplicates(received: Sequence[Received], kills: Sequence[int], history: History) -> None:
    accepted: set[str] = set()
    duplicates: Counter[str] = Counter()
    for number, one in enumerate(received):
        if one.webhook_id in accepted:
            duplicates[one.call_sid] += 1
            if duplicates[one.call_sid] > sum(kill <= number for kill in kills):
                history.problems.append(f"{one.call_sid}: more duplicates than the sender was killed.")
        if one.accepted:
            accepted.add(one.webhook_id)
