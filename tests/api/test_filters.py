from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.api import filters
from bridge.errors import UsageError
from bridge.outbox.outbox import Selection

NOW = 1_787_392_800.0
CALL = "CA" + "3" * 32


def test_every_filter_means_something() -> None:
    given = {
        "call_sid": [CALL],
        "endpoint": ["https://agent.example.com/transcripts?key=1"],
        "state": ["dead", "pending"],
        "event_id": ["evt_a", "evt_b"],
        "since": ["2026-08-22T10:00:00Z"],
        "until": ["2026-08-22T14:30:00.5+02:00"],
    }
    assert filters.selection(given, NOW) == Selection(
        event_ids=("evt_a", "evt_b"),
        call_sid=CALL,
        endpoint="https://agent.example.com/transcripts?key=1",
        states=frozenset({"dead", "pending"}),
        since=datetime(2026, 8, 22, 10, tzinfo=UTC).timestamp(),
        until=datetime(2026, 8, 22, 12, 30, 0, 500_000, tzinfo=UTC).timestamp(),
    )
    assert given.keys() == set(filters.FILTERS)


def test_no_filter_selects_everything() -> None:
    assert filters.selection({}, NOW) == Selection()


@pytest.mark.parametrize(
    ("text", "ago_s"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("7d", 7 * 86400), ("0s", 0), ("999999d", 999_999 * 86400)],
)
def test_a_time_may_be_relative(text: str, ago_s: float) -> None:
    assert filters.selection({"since": [text]}, NOW).since == NOW - ago_s


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("call", CALL, "'call' is not a filter: there are call_sid, endpoint,"),
        ("limit", "5", "'limit' is not a filter"),
        ("x" * 500, "", "...' is not a filter"),
        ("call_sid", "", "call_sid '' cannot be used: a call's id begins with CA"),
        ("call_sid", "CA../../x", "call_sid 'CA../../x' cannot be used"),
        ("call_sid", f"{CALL}\n", "cannot be used"),
        ("call_sid", "CA\u0663", "call_sid 'CA\\u0663' cannot be used"),
        ("endpoint", "", "endpoint '' cannot be used"),
        ("endpoint", "x" * 2049, "endpoint 'xxx"),
        ("event_id", "evt a", "event_id 'evt a' cannot be used"),
        ("event_id", "\ud800", "event_id '\\ud800' cannot be used"),
        ("state", "DEAD", "state 'DEAD' cannot be used: there are pending, done, dead, erased"),
        ("since", "yesterday", "since 'yesterday' cannot be used: expected a time such as 2026-08-22T10:00:00Z"),
        ("since", "2026-08-22T10:00:00", "expected a time"),
        ("since", "2026-08-22", "expected a time"),
        ("since", "2026-02-30T10:00:00Z", "expected a time"),
        ("since", "1000000d", "expected a time"),
        ("since", "-2h", "expected a time"),
        ("since", "\u0662h", "expected a time"),
        ("since", "2 h", "expected a time"),
        ("until", "2026-08-22T10:00:00 02:00", "until '2026-08-22T10:00:00 02:00' cannot be used"),
        ("until", "inf", "expected a time"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(name: str, value: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        filters.selection({name: [value]}, NOW)
    sentence = str(refused.value)
    assert words in sentence
    assert len(sentence) < 200
    assert sentence.isprintable()


def test_moments_at_the_ends_of_time_are_refused_or_numbers() -> None:
    assert filters.selection({"since": ["0001-01-01T00:00:00+00:00"]}, NOW).since == -62_135_596_800
    assert filters.selection({"until": ["9999-12-31T23:59:59-23:59"]}, NOW).until is not None


def test_one_value_each_but_several_ids_and_states() -> None:
    for name in ("call_sid", "endpoint", "since", "until"):
        with pytest.raises(UsageError, match=f"{name} has 2 values: expected 1"):
            filters.selection({name: ["2h", "2h"]}, NOW)
    with pytest.raises(UsageError, match="event_id has 1000000 values: expected 1 to 1000"):
        filters.selection({"event_id": ["evt_a"] * 10**6}, NOW)


@pytest.mark.parametrize("name", filters.FILTERS)
def test_an_empty_list_does_not_mean_everything(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has 0 values"):
        filters.selection({name: []}, NOW)


def test_until_lies_after_since() -> None:
    assert filters.selection({"since": ["2h"], "until": ["1h"]}, NOW).until == NOW - 3600
    with pytest.raises(UsageError, match="until must be later than since"):
        filters.selection({"since": ["1h"], "until": ["2h"]}, NOW)


def test_json_has_texts_or_lists_of_them() -> None:
    assert filters.texts({"call_sid": CALL, "state": ["dead"]}) == {"call_sid": [CALL], "state": ["dead"]}
    wrong: Any
    for wrong in (None, 5, True, {}, [5], ["a", None], [["a"]]):
        with pytest.raises(UsageError, match="'state' must be a text or a list of texts"):
            filters.texts({"state": wrong})


@pytest.mark.parametrize("text", ["", "0", "101", "-1", "1e1", " 5", "5.0", "\u0665", "9" * 5000])
def test_a_number_lies_between_its_bounds(text: str) -> None:
    assert filters.whole("limit", "100", 1, 100) == 100
    with pytest.raises(UsageError, match=r"limit .* cannot be used: expected a number from 1 to 100"):
        filters.whole("limit", text, 1, 100)
