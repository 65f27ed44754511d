from bridge.whisper.turnstile import PER_SECOND, Turnstile


def test_within_any_second_there_are_so_many_places_and_no_more() -> None:
    turnstile = Turnstile()
    places = [now + turnstile.wait_s(now) for now in (0.0,) * 30 + (0.4,) * 30 + (3.2,) * 30]
    assert places[:PER_SECOND] == [0.0] * PER_SECOND
    assert places == sorted(places)
    for first, last in zip(places, places[PER_SECOND:], strict=False):
        assert last - first >= 1.0
    assert turnstile.wait_s(100.0) == 0
