import json

import pytest

from bridge.local.deliveries import judge
from bridge.local.receiver import Answer, Received


def got(
    sequence: int | None,
    type_: str = "transcript.final",
    *,
    status: int = 200,
    id_: str | None = None,
    call: str = "CA1",
) -> Received:
    data = {"call_sid": call} | ({} if sequence is None else {"sequence": sequence})
    event = {"type": type_, "data": data}
    body = json.dumps(event).encode()
    return Received(id_ or f"{call}.{sequence}", True, {}, body, event, 0.0, Answer(status))


STARTED, FINAL, ENDED = got(1, "call.started"), got(2), got(3, "call.ended")


def test_a_call_as_it_should_be() -> None:
    partials = [got(None, "transcript.partial", id_=f"p{n}") for n in range(3)]

    verdict = judge([STARTED, *partials, FINAL, ENDED])

    assert verdict.problems == []
    assert (verdict.requests, verdict.events, verdict.partials) == (6, 6, 3)
    assert (verdict.duplicates, verdict.retries, verdict.unverified) == (0, 0, 0)


def test_retries_and_duplicates_are_told_apart_and_are_no_problem() -> None:
    verdict = judge([got(1, "call.started", status=500), STARTED, FINAL, STARTED, FINAL, ENDED])

    assert verdict.problems == []
    assert (verdict.requests, verdict.events, verdict.retries, verdict.duplicates) == (6, 3, 1, 2)


def test_what_is_wrong_is_counted() -> None:
    verdict = judge([STARTED, ENDED, got(5, "transcript.late"), FINAL])

    assert (verdict.out_of_order, verdict.missing) == (2, 1)


def test_calls_are_judged_apart() -> None:
    other = [got(1, "call.started", call="CA2"), got(2, "call.ended", call="CA2")]

    assert judge([STARTED, other[0], FINAL, other[1], ENDED]).problems == []


def test_a_late_transcript_may_follow_the_end() -> None:
    assert judge([STARTED, FINAL, ENDED, got(4, "transcript.late")]).problems == []


@pytest.mark.parametrize(
    ("received", "problem"),
    [
        ([FINAL, STARTED, ENDED], "sequence 2 was tried before"),
        ([STARTED, ENDED], "2 of 3 never arrived"),
        ([STARTED, got(2, status=500), ENDED], "sequence 3 was tried before"),
        ([got(1), FINAL, ENDED], "nothing else, has sequence 1"),
        ([STARTED, FINAL], "call.ended never arrived"),
        ([STARTED, FINAL, ENDED, got(4)], "sequence 4 came after call.ended"),
        ([STARTED, got(2, id_="a"), got(2, "other", id_="a"), ENDED], "a came with another body"),
        ([STARTED, FINAL, ENDED, Received("", True, {}, b"", None, 0.0)], "without webhook-id"),
    ],
)
def test_what_is_wrong(received: list[Received], problem: str) -> None:
    assert any(problem in sentence for sentence in judge(received).problems)


def test_a_call_that_goes_on_needs_no_end() -> None:
    assert judge([STARTED, FINAL], finished=False).problems == []
