from bridge.whisper.patience import LAG_FACTOR, LEAST_S, MOST_S, Patience

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
    patience.final(2 * SECOND, 22.0)
    assert patience.seconds == LAG_FACTOR * (22 - 2)


def test_a_final_ends_what_a_witness_had_won_for_the_server() -> None:
    patience = Patience()
    live(patience, 0, 36)
    patience.in_vain()
    live(patience, 37, 2)
    patience.final(4 * SECOND, 39.0)
    assert patience.seconds == LEAST_S
