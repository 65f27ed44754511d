import json
from typing import Any

import pytest

from bridge.local.demo_result import result
from bridge.local.receiver import Received
from bridge.local.twilio import CallReport, Track

SAID: dict[Track, str] = {"inbound": "My name is David Miller.", "outbound": "All right."}


def got(sequence: int, type_: str, at: float = 0.0, *, verified: bool = True, **data: Any) -> Received:
    event = {"type": type_, "data": {"call_sid": "CA1", "sequence": sequence, **data}}
    return Received(f"evt_{sequence}", verified, {}, json.dumps(event).encode(), event, at)


def call() -> CallReport:
    report = CallReport("CA1", voice_status=200)
    report.sent.extend(100.0 + n * 0.02 for n in range(500))
    return report


def final(  # noqa: PLR0917 - a table's row
    sequence: int, track: Track, text: str, start_ms: int, end_ms: int, at: float
) -> Received:
    return got(sequence, "transcript.final", at, track=track, text=text, start_ms=start_ms, end_ms=end_ms)


STARTED = got(1, "call.started")
CALLER = final(2, "inbound", "my name is david miller", 0, 2000, 102.5)
AGENT = final(3, "outbound", "all right", 2500, 4000, 105.0)
ENDED = got(4, "call.ended", complete=True)


def test_a_good_demo() -> None:
    told = result([STARTED, CALLER, AGENT, ENDED], call(), SAID)

    assert told.problems == []
    assert told.finals == 2
    assert {track: score.rate for track, score in told.scores.items()} == {"inbound": 0.0, "outbound": 0.0}
    assert told.delays_s == pytest.approx([0.5, 1.0])
    assert told.delay_s(0.5) == pytest.approx(0.5)
    assert told.delay_s(0.95) == pytest.approx(1.0)


def test_a_duplicate_counts_once_and_with_its_first_arrival() -> None:
    late = final(2, "inbound", "my name is david miller", 0, 2000, 200.0)

    told = result([STARTED, CALLER, AGENT, late, ENDED], call(), SAID)

    assert told.problems == []
    assert max(told.delays_s) == pytest.approx(1.0)
    assert told.deliveries.duplicates == 1


def test_without_a_script_there_is_no_error_rate() -> None:
    told = result([STARTED, CALLER, AGENT, ENDED], call(), {})

    assert told.problems == []
    assert told.scores == {}


def test_without_a_final_there_is_no_delay() -> None:
    assert result([STARTED, got(2, "call.ended", complete=True)], call(), {}).delay_s(0.5) is None


@pytest.mark.parametrize(
    ("received", "problem"),
    [
        ([], "call.ended never arrived"),
        ([STARTED, CALLER, AGENT], "call.ended never arrived"),
        ([STARTED, AGENT, CALLER, ENDED], "sequence 3 was tried before"),
        ([STARTED, CALLER, AGENT, got(4, "call.ended", complete=False)], "not complete"),
        ([STARTED, CALLER, AGENT, got(4, "call.ended", complete=True, verified=False)], "1 of 4 signatures"),
        ([STARTED, got(2, "call.ended", complete=True)], "caller's word error rate is 1.00, above 0.25"),
    ],
)
def test_a_demo_that_failed_says_why(received: list[Received], problem: str) -> None:
    assert any(problem in sentence for sentence in result(received, call(), SAID).problems)


def test_what_went_wrong_in_the_call_comes_first() -> None:
    report = call()
    report.problem = "the bridge refused the call with 403."

    assert result([], report, {}).problems[0] == "the bridge refused the call with 403."
