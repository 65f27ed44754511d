from bridge.outbox.outbox import Selection
from bridge.outbox.postgresql.selection import ANY, indexed, where


def test_what_is_not_said_is_no_condition() -> None:
    assert where(Selection(), {"dead"}, None, first=1) == ("(state = 'dead')", [])
    assert where(Selection(), (), None, first=1) == ("(false)", [])


def test_all_conditions_hold_together() -> None:
    selection = Selection(event_ids=("e1", "e2"), call_sid="CA1", endpoint="tag", since=1.0, until=2.0)
    terms, values = where(selection, {"done", "dead"}, ["https://a.example/"], first=3)
    assert terms == (
        "(state = 'dead' or state = 'done') and (event_id = any($3::text[])) and (call_sid = $4)"
        " and (endpoint = any($5::text[])) and (created_at >= $6::float8) and (created_at < $7::float8)"
    )
    assert values == [["e1", "e2"], "CA1", ["https://a.example/"], 1.0, 2.0]


def test_an_endpoint_that_is_not_known_selects_nothing() -> None:
    assert where(Selection(endpoint="x"), {"dead"}, [], first=1) == (
        "(state = 'dead') and (endpoint = any($1::text[]))",
        [[]],
    )


def test_what_an_index_finds() -> None:
    assert indexed(Selection(call_sid="CA1"), ANY)
    assert indexed(Selection(event_ids=("e",)), ANY)
    assert indexed(Selection(endpoint="x"), {"dead"})
    assert indexed(Selection(since=1), {"pending"})
    assert not indexed(Selection(since=1), {"done"})
    assert not indexed(Selection(), ANY)
