from bridge.whisper.patience import FLOOR_MOST_S, LEAST_S, MOST_S, TRIES, Patience

SECOND = 8000


def live(patience: Patience, start: int, seconds: int) -> int | None:
    """Audio is sent as it is spoken; returns before which offset a final is due in the end."""
    due = None
    for now in range(start, start + seconds + 1):
        due = patience.mark(float(now), now * SECOND)
    return due


def test_a_final_is_due_for_what_was_sent_long_enough_ago() -> None:
    patience = Patience()
    assert live(patience, 0, 7) is None
    assert live(patience, 8, 12) == (20 - LEAST_S) * SECOND


def test_what_an_earlier_socket_was_sent_does_not_count() -> None:
    patience = Patience()
    live(patience, 0, 30)
    patience.restart()
    assert live(patience, 31, 7) is None


def test_each_socket_that_understands_nothing_gives_the_next_more_time() -> None:
    patience = Patience()
    seen = []
    for _ in range(8):
        seen.append(patience.seconds)
        patience.lose()
    assert seen == [8, 16, 32, 64, 128, 256, 256, 256]
    assert max(seen) == MOST_S


def test_after_several_it_has_not_helped() -> None:
    patience = Patience()
    assert [patience.lose() for _ in range(TRIES + 2)] == [n == TRIES for n in range(1, TRIES + 3)]
    patience.final(0, SECOND, 0.0)
    assert not patience.lose()


def test_a_server_that_is_slow_gets_three_times_what_it_takes() -> None:
    patience = Patience()
    patience.lose()
    live(patience, 0, 14)
    patience.final(0, 2 * SECOND, 14.0)
    assert patience.seconds == 3 * (14 - 2)


def test_a_final_of_what_was_sent_again_shows_that_it_was_right() -> None:
    patience = Patience()
    live(patience, 0, 9)
    patience.lose()
    live(patience, 10, 2)
    patience.final(3 * SECOND, 4 * SECOND, 12.0)
    assert patience.seconds == LEAST_S


def test_noise_makes_it_wait_longer_for_the_rest_of_the_call() -> None:
    patience = Patience()
    for now in range(0, 2000, 100):
        live(patience, now, 9)
        patience.lose()
        live(patience, now + 10, 20)
        patience.final(
            (now + 29) * SECOND, (now + 30) * SECOND, now + 30.0
        )  # of what was said after the noise
        assert LEAST_S < patience.seconds <= FLOOR_MOST_S
    assert patience.seconds == FLOOR_MOST_S
