"""The checker finds what it is there for: a checker that never complains would let every scenario pass."""

import json
from hashlib import sha256

import pytest

from bridge.local.receiver import Answer, Received
from tests.chaos.history import Acknowledged, check


def got(
    sequence: int,
    *,
    call: str = "CA1",
    status: int = 200,
    event_id: str = "",
    text: str = "",
    verified: bool = True,
    late_s: float = 0.2,
) -> Received:
    kind = "call.started" if sequence == 1 else "transcript.final"
    event = {"type": kind, "data": {"call_sid": call, "sequence": sequence, "text": text}}
    headers = {"webhook-timestamp": "1000"}
    return Received(
        webhook_id=event_id or f"{call}.{sequence}",
        verified=verified,
        headers=headers,
        body=json.dumps(event).encode(),
        event=event,
        received_at=1000 + late_s,
        answer=Answer(status),
    )


def told(received: Received) -> Acknowledged:
    return Acknowledged(
        received.call_sid, received.data["sequence"], received.webhook_id, sha256(received.body).hexdigest()
    )


ONE, TWO, THREE = got(1), got(2), got(3)
ALL = [told(ONE), told(TWO), told(THREE)]


def test_a_run_without_a_fault() -> None:
    history = check(ALL[:2], [ONE, got(2, status=503), TWO, TWO, THREE])
    history.require()
    assert str(history) == (
        "2 acknowledged, 3 delivered, 1 duplicates, lost 0, out of order 0, holes 0"
    )  # the third was stored too, but its publish never returned


@pytest.mark.parametrize(
    ("received", "figures", "problem"),
    [
        ([ONE, TWO], (1, 0, 0), "CA1: event 3 was acknowledged and never accepted"),
        ([ONE, TWO, got(3, status=503)], (1, 0, 1), "CA1: event 3 was acknowledged and never accepted"),
        ([ONE, THREE, TWO], (0, 1, 0), "sequence 3 was tried before"),
        ([ONE, got(2, status=503), THREE, TWO], (0, 1, 0), "sequence 3 was tried before"),
        ([ONE, TWO, got(4), THREE], (0, 1, 0), "sequence 4 was tried before"),
        ([ONE, THREE], (1, 1, 1), "2 of 3 never arrived"),
        ([ONE, TWO, got(3, text="x")], (0, 0, 0), "event 3 came with another body than was acknowledged"),
        ([ONE, TWO, THREE, got(3, text="x")], (0, 0, 0), "CA1.3 came with another body the second time"),
        ([ONE, TWO, THREE, got(4, event_id="CA1.3")], (0, 0, 0), "CA1.3 stands under two sequences"),
        ([ONE, TWO, THREE, got(3, event_id="x")], (0, 0, 0), "sequence 3 has two ids"),
        ([ONE, TWO, got(3, verified=False)], (0, 0, 0), "event 3 came with a signature that is not valid"),
        ([ONE, TWO, got(3, late_s=6)], (0, 0, 0), "event 3 came 6.0 s after its signature's timestamp"),
    ],
)
def test_each_fault_is_found(received: list[Received], figures: tuple[int, int, int], problem: str) -> None:
    history = check(ALL, received)
    assert (history.lost, history.out_of_order, history.holes) == figures
    with pytest.raises(AssertionError, match=problem):
        history.require()


def test_a_kill_allows_one_duplicate_for_each_call() -> None:
    received = [ONE, got(1, call="CA2"), ONE, got(1, call="CA2"), TWO, TWO]
    check(ALL[:2], received, kills=[2, 5]).require()
    with pytest.raises(AssertionError, match="CA1: more duplicates than the sender was killed"):
        check(ALL[:2], received, kills=[2, 6]).require()
