from hypothesis import given
from hypothesis import strategies as st

from bridge.twilio.allowance import AHEAD_S, BURST, FAR_AHEAD_S, OWED_S, RATE, Ahead, Allowance


def taken(allowance: Allowance, messages: int, now: float) -> int:
    """How many of so many messages that come at once are let in."""
    for number in range(messages):
        allowance.messages -= 1
        if allowance.messages < 0 and not allowance.more(now):
            return number
    return messages


def test_a_flood_is_ended_after_a_burst() -> None:
    assert taken(Allowance(100.0, 1), 10_000, 100.0) == BURST


def test_a_flood_that_goes_on_gets_the_rate_and_no_more() -> None:
    allowance, let_in = Allowance(0.0, 1), 0
    for tenth in range(100):  # 10,000 a second, for ten seconds
        got = taken(allowance, 1000, tenth / 10)
        let_in += got
        if got < 1000:
            break
    assert let_in <= BURST + RATE


@given(st.lists(st.floats(0.0, 0.5), max_size=200))
def test_both_tracks_of_a_call_never_reach_the_limit(pauses: list[float]) -> None:
    """However late they come: what was held up comes at once."""
    allowance, now, owed = Allowance(0.0, 1), 0.0, 0.0
    for pause in pauses:
        now += pause
        owed += pause * 100
        assert taken(allowance, int(owed), now) == int(owed)
        owed -= int(owed)


def test_a_call_that_stood_still_for_a_minute_brings_it_all_at_once() -> None:
    allowance = Allowance(0.0, 1)
    assert taken(allowance, 990, 9.9) == 990
    assert taken(allowance, 6000, 69.9) == 6000


def test_who_was_quiet_for_an_hour_saved_a_bounded_number() -> None:
    allowance = Allowance(0.0, 1)
    taken(allowance, BURST, 0.0)
    assert taken(allowance, 100_000, 3600.0) == OWED_S * RATE


def test_timestamps_of_a_call_are_believed_and_the_clock_is_asked_now_and_then_only() -> None:
    allowance, asked = Allowance(100.0, 1), 0
    for ms in range(20, 60_000, 20):
        if ms > allowance.believed_ms:
            asked += 1
            assert allowance.ahead(ms, 100.0 + ms / 1000) is Ahead.NO
    assert asked <= 60 / AHEAD_S + 1


def test_a_jump_after_a_hold_is_believed_as_the_time_has_passed() -> None:
    allowance = Allowance(0.0, 1)
    allowance.ahead(20, 0.1)
    assert allowance.ahead(3_600_020, 3600.1) is Ahead.NO


def test_a_stream_that_does_not_begin_at_zero_is_measured_from_where_it_does() -> None:
    allowance = Allowance(0.0, 1)
    assert allowance.ahead(90_000, 0.1) is Ahead.NO
    assert allowance.ahead(90_020, 0.1) is Ahead.NO


def test_what_cannot_have_been_spoken_yet() -> None:
    allowance = Allowance(0.0, 1)
    allowance.ahead(0, 0.0)
    assert allowance.ahead(round(AHEAD_S * 1000), 0.0) is Ahead.NO
    assert allowance.ahead(round(AHEAD_S * 1000) + 20, 0.0) is Ahead.YES
    assert allowance.ahead(round(FAR_AHEAD_S * 1000), 0.0) is Ahead.YES
    assert allowance.ahead(round(FAR_AHEAD_S * 1000) + 20, 0.0) is Ahead.FAR
    assert allowance.ahead(7 * 86_400_000, 0.0) is Ahead.FAR


def test_simulated_calls_may_run_faster_than_time() -> None:
    allowance = Allowance(0.0, 10)
    allowance.ahead(0, 0.0)
    assert allowance.ahead(100_000, 10.0) is Ahead.NO
    assert taken(allowance, 10_000, 0.0) == 10_000
