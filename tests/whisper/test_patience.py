from bridge.whisper.patience import FLOOR_MOST_S, LAG_FACTOR, LEAST_S, MOST_S, Patience

SECOND = 8000


def live(patience: Patience, start: int, seconds: int) -> int | None:
    """Audio is sent as it is spoken; returns before which offset a final is due in the end."""
    due = None
    for now in range(start, start + seconds + 1):
        due = patience.mark(float(now), now * SECOND)
    return due


def test_a_final_is_due_for_what_was_sent_long_enough_ago() -> None:
    patience = Patience()
    assert live(patience, 0, 34) is None
    assert live(patience, 35, 12) == (47 - LEAST_S) * SECOND


def test_what_an_earlier_socket_was_sent_does_not_count() -> None:
    patience = Patience()
    live(patience, 0, 60)
    patience.restart()
    assert live(patience, 61, 34) is None


def test_a_partial_shows_that_the_server_hears() -> None:
    patience = Patience()
    live(patience, 0, 34)
    patience.partial(34.0)
    assert live(patience, 35, 33) is None
    assert live(patience, 69, 0) == (69 - LEAST_S) * SECOND


def test_each_witness_that_understands_nothing_gives_the_server_more_time() -> None:
    patience = Patience()
    seen = []
    for _ in range(4):
        seen.append(patience.seconds)
        patience.in_vain()
    assert seen == [35, 70, MOST_S, MOST_S]


def test_a_server_that_is_slow_gets_three_times_what_it_takes() -> None:
    patience = Patience()
    live(patience, 0, 22)
    patience.final(0, 2 * SECOND, 22.0)
    assert patience.seconds == LAG_FACTOR * (22 - 2)


def test_a_final_of_what_the_witness_was_sent_shows_that_it_was_right() -> None:
    patience = Patience()
    live(patience, 0, 36)
    patience.in_vain()
    live(patience, 37, 2)
    patience.final(3 * SECOND, 4 * SECOND, 39.0)
    assert patience.seconds == LEAST_S


def test_noise_makes_it_wait_longer_for_the_rest_of_the_call() -> None:
    patience = Patience()
    for now in range(0, 2000, 100):
        live(patience, now, 40)
        patience.in_vain()
        live(patience, now + 41, 20)
        patience.final(
            (now + 60) * SECOND, (now + 61) * SECOND, now + 61.0
        )  # of what was said after the noise
        assert LEAST_S < patience.seconds <= FLOOR_MOST_S
    assert patience.seconds == FLOOR_MOST_S
