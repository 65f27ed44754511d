import pytest

from bridge.call.clock import CallClock, milliseconds


def test_the_first_media_is_zero_whatever_its_timestamp() -> None:
    clock = CallClock()
    clock.new_stream(100.0)
    assert clock.position(5020, now=100.0) == 0
    assert clock.position(5040, now=100.0) == 160
    assert milliseconds(clock.position(7640, now=103.0)) == 2620


def test_media_before_the_first_is_not_before_zero() -> None:
    clock = CallClock()
    clock.position(40, now=0.0)
    assert clock.position(20, now=0.0) == 0


def test_a_new_stream_goes_on_by_wall_time() -> None:
    clock = CallClock()
    clock.new_stream(100.0)
    clock.position(20, now=100.0)
    clock.new_stream(112.5)
    assert clock.position(0, now=112.5) == 12_500 * 8
    assert clock.position(20, now=112.5) == 12_520 * 8


def test_a_clock_that_ran_before_goes_on() -> None:
    clock = CallClock(began_at=100.0)
    clock.new_stream(112.5)
    assert clock.position(20, now=112.5) == 12_500 * 8
    assert clock.began_at == 100.0


def test_a_clock_that_was_set_back_does_not_put_a_stream_before_what_was_received() -> None:
    clock = CallClock(began_at=3600.0)
    clock.new_stream(100.0, not_before=80_000)
    assert clock.position(20, now=100.0) == 80_000
    assert clock.position(40, now=100.0) == 80_160


@pytest.mark.parametrize("late_s", [0.0, 0.02, 1.4])
def test_media_that_waited_for_its_stream_to_be_admitted_is_no_later(late_s: float) -> None:
    clock = CallClock()
    clock.new_stream(100.0)
    assert clock.position(20, now=100.02 + late_s) == 0
    clock.new_stream(112.5)
    assert clock.position(20, now=112.52 + late_s) == 12_500 * 8
    assert clock.position(40, now=112.52 + late_s) == 12_520 * 8
