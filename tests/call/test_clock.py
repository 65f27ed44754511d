from bridge.call.clock import CallClock, milliseconds


def test_the_first_media_is_zero_whatever_its_timestamp() -> None:
    clock = CallClock()
    assert clock.position(5020, now=100.0) == 0
    assert clock.position(5040, now=100.0) == 160
    assert milliseconds(clock.position(7640, now=103.0)) == 2620


def test_media_before_the_first_is_not_before_zero() -> None:
    clock = CallClock()
    clock.position(40, now=0.0)
    assert clock.position(20, now=0.0) == 0


def test_a_new_stream_goes_on_by_wall_time() -> None:
    clock = CallClock()
    clock.position(20, now=100.0)
    clock.new_stream()
    assert clock.position(0, now=112.5) == 12_500 * 8
    assert clock.position(20, now=112.5) == 12_520 * 8
