from dataclasses import replace
from typing import Any

from bridge.local.load.ledger import Ledger
from bridge.local.receiver import Received

MINE = "CA1"


def webhook(
    sequence: int | None, type_: str = "transcript.final", text: str = "", *, call: str = MINE, **other: Any
) -> Received:
    data = {"call_sid": call, "text": text} | ({} if sequence is None else {"sequence": sequence})
    return replace(
        Received(f"{call}-{sequence}-{type_}", True, {}, b"", {"type": type_, "data": data}, 0.0), **other
    )


def told(*webhooks: Received, finals: dict[str, float] | None = None) -> Ledger:
    ledger = Ledger([MINE])
    ledger.said(finals or {})
    for at, one in enumerate(webhooks):
        ledger.received(one, 10.0 + at)
    return ledger


START, ONE, TWO, END = (
    webhook(1, "call.started"),
    webhook(2, text="one"),
    webhook(3, text="two"),
    webhook(4, "call.ended"),
)


def test_everything_came() -> None:
    ledger = told(
        START, ONE, TWO, END, webhook(5, "transcript.late", "late"), finals={"one": 10.5, "two": 11.0}
    )

    assert ledger.complete
    assert ledger.problem == ""
    figures = ledger.figures()
    assert figures["final_to_post_ms"] == {"p50": 500, "p99": 1000, "max": 1000}
    assert (figures["events"], figures["finals"]) == (5, 2)
    assert not any(
        figures[name] for name in ("missing", "doubled", "out_of_order", "unverified", "of_other_calls")
    )


def test_doubles_partials_and_other_calls_are_no_problem() -> None:
    partial = webhook(None, "transcript.partial", "on")
    other = webhook(7, call="CA2")

    ledger = told(START, ONE, partial, partial, ONE, other, TWO, START, END)

    assert ledger.complete
    assert ledger.problem == ""
    assert (ledger.figures()["doubled"], ledger.figures()["of_other_calls"]) == (2, 1)


def test_what_is_missing_is_waited_for_and_told() -> None:
    ledger = told(START, TWO, finals={"one": 1.0, "two": 2.0})

    assert not ledger.complete
    assert ledger.problem == (
        "not all webhooks came as promised: 2 events missing, 1 out of order, 1 finals missing."
    )
    assert told(START, ONE, TWO, finals={}).problem.endswith("1 events missing.")
    none = Ledger([MINE])
    assert not none.complete
    none.excuse(MINE)
    assert none.complete


def test_disorder_wrong_signatures_and_a_final_twice_are_told() -> None:
    swapped = told(START, TWO, ONE, END)
    again = told(START, ONE, webhook(3, text="one"), END)
    forged = told(START, ONE, TWO, webhook(4, "call.ended", verified=False), END)

    assert swapped.complete
    assert swapped.problem == "not all webhooks came as promised: 2 out of order."
    assert again.problem == "not all webhooks came as promised: 1 finals told twice."
    assert forged.problem == "not all webhooks came as promised: 1 with a wrong signature."
