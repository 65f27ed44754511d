"""Judges what a receiver got: every event once at least, in order, unchanged, and from whom it says."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.local.receiver import Received


@dataclass(slots=True)
class Deliveries:
    """The verdict over a list of requests; `problems` is empty when the contract was kept."""

    requests: int = 0
    events: int = 0
    """Distinct webhook ids."""
    partials: int = 0
    """Of these, the ones without a sequence."""
    unverified: int = 0
    duplicates: int = 0
    """Requests for an event that had been accepted before: allowed, never needed."""
    retries: int = 0
    """Requests for an event that had been tried, but not accepted."""
    out_of_order: int = 0
    """Events that were tried before all that precedes them was accepted."""
    missing: int = 0
    """Events that were never accepted, though the call's later ones were tried."""
    problems: list[str] = field(default_factory=list)
    """One sentence each: a broken order, a hole, a changed body, an event without an id."""


@dataclass(slots=True)
class _Call:
    accepted: set[int] = field(default_factory=set)
    highest: int = 0
    early: int = 0
    ended: bool = False

    @property
    def missing(self) -> list[int]:
        return sorted(set(range(1, self.highest + 1)) - self.accepted)

    def holes(self, call_sid: str, *, finished: bool) -> list[str]:
        problems = []
        if missing := self.missing:
            problems.append(f"{call_sid}: {_numbers(missing)} of {self.highest} never arrived.")
        if finished and not self.ended:
            problems.append(f"{call_sid}: call.ended never arrived.")
        return problems


def judge(received: Sequence[Received], *, finished: bool = True) -> Deliveries:
    """Go through requests in order of arrival. `finished` false: calls may still lack their `call.ended`.

    The order that is promised: the first delivery of event n + 1 of a call is not tried before n was
    accepted, `call.started` comes first, and only `transcript.late` follows `call.ended`.
    """
    verdict = Deliveries()
    bodies: dict[str, bytes] = {}
    accepted: set[str] = set()
    calls: dict[str, _Call] = {}
    for one in received:
        verdict.requests += 1
        verdict.unverified += not one.verified
        if not one.webhook_id:
            verdict.problems.append(f"a {one.type or 'request'} came without webhook-id.")
            continue
        first = bodies.setdefault(one.webhook_id, one.body)
        if one.webhook_id in accepted:
            verdict.duplicates += 1
        elif first is not one.body:
            verdict.retries += 1
        if first != one.body:
            verdict.problems.append(f"{one.webhook_id} came with another body the second time.")
        sequence = one.data.get("sequence")
        if isinstance(sequence, int):
            verdict.problems += _place(one, sequence, calls.setdefault(one.call_sid, _Call()))
        elif first is one.body:
            verdict.partials += 1
        if one.accepted:
            accepted.add(one.webhook_id)
    verdict.events = len(bodies)
    for call_sid, call in calls.items():
        verdict.out_of_order += call.early
        verdict.missing += len(call.missing)
        verdict.problems += call.holes(call_sid, finished=finished)
    return verdict


def _place(one: Received, sequence: int, call: _Call) -> list[str]:
    """What is wrong with `one` coming now; then takes note of it."""
    problems = []
    where = f"{one.call_sid}: {one.type} with sequence {sequence}"
    if sequence > call.highest:
        if not set(range(1, sequence)) <= call.accepted:
            call.early += 1
            problems.append(f"{where} was tried before all that precedes it was accepted.")
        if (sequence == 1) != (one.type == "call.started"):
            problems.append(f"{where}: call.started, and nothing else, has sequence 1.")
        if call.ended and one.type != "transcript.late":
            problems.append(f"{where} came after call.ended.")
    call.highest = max(call.highest, sequence)
    if one.accepted:
        call.accepted.add(sequence)
        call.ended = call.ended or one.type == "call.ended"
    return problems


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:5]))
    return shown + (" ..." if len(numbers) > 5 else "")
