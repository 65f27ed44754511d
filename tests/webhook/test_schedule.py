"""When an event is tried again, and when it is given up."""

import pytest

from bridge.webhook import schedule

HOUR = 3600.0
EXPECTED = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 600, 600]


def middle() -> float:
    return 0.5


def test_the_waits_are_those_of_the_schedule() -> None:
    assert [schedule.wait_s(n, middle) for n in range(1, 14)] == EXPECTED
    assert schedule.STEPS_S[0] == 0.0
    assert schedule.wait_s(500, middle) == 600


def test_each_wait_is_varied_by_a_fifth() -> None:
    assert schedule.wait_s(5, lambda: 0.0) == pytest.approx(8)
    assert schedule.wait_s(5, lambda: 1.0) == pytest.approx(12)


def test_a_throttled_receiver_gets_five_seconds_at_least() -> None:
    assert schedule.wait_s(1, middle, throttled=True) == 5
    assert schedule.wait_s(7, middle, throttled=True) == 30


@pytest.mark.parametrize(
    ("asked", "waited"), [(0, 1), (1, 1), (17, 17), (3600, 3600), (1e9, 3600), (float("inf"), 3600)]
)
def test_what_the_receiver_asked_for_is_honoured_between_1_s_and_1_h(asked: float, waited: float) -> None:
    assert schedule.wait_s(1, middle, throttled=True, retry_after_s=asked) == waited


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("9" * 5000, float("inf")),
        ("Sat, 22 Aug 2026 10:00:30 GMT", 30.0),
        ("Saturday, 22-Aug-26 10:00:30 GMT", 30.0),
        ("Sat, 22 Aug 2026 09:00:00 GMT", 0.0),
        ("Sat, 22 Aug 2026 10:00:30 -0000", 30.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Sat, 99 Foo 2026 10:00:30 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert schedule.retry_after_s(header, 1_787_392_800.0) == seconds


def test_an_event_is_given_up_after_72_hours_of_outage() -> None:
    def spent(now: float, failures: int = 99) -> bool:
        return schedule.is_spent(now, failures=failures, first_failure=0.0, created_at=-5.0)

    assert not spent(72 * HOUR - 1)
    assert spent(72 * HOUR)
    assert not spent(100 * HOUR, failures=10), "each event gets the dense part of the schedule"
    assert spent(100 * HOUR, failures=11)


def test_an_event_that_came_during_an_outage_has_72_hours_of_its_own() -> None:
    for now, spent in ((142 * HOUR, False), (143 * HOUR, True)):
        assert schedule.is_spent(now, failures=99, first_failure=0.0, created_at=71 * HOUR) is spent


def test_while_the_endpoint_is_down_one_failure_after_72_hours_is_enough() -> None:
    def spent(first_failure: float, created_at: float) -> bool:
        return schedule.is_spent(
            100 * HOUR, failures=1, first_failure=first_failure, created_at=created_at, down=True
        )

    assert spent(28 * HOUR, 28 * HOUR)
    assert not spent(28 * HOUR + 1, 0.0), "the outage is not that old"
    assert not spent(0.0, 28 * HOUR + 1), "the event is not that old"
