from bridge.whisper.lifespan import ROTATE_AT, SHORTEST_S, Lifespan


def test_three_drops_at_the_same_age_are_a_limit() -> None:
    lifespan = Lifespan()
    assert not lifespan.dropped(3600.2, now=400)
    assert not lifespan.dropped(3600.0, now=4000)
    assert not lifespan.is_old(3599)
    assert lifespan.dropped(3599.8, now=7600)
    assert lifespan.limit_s == 3599.8
    assert not lifespan.is_old(3599.8 * ROTATE_AT - 1)
    assert lifespan.is_old(3599.8 * ROTATE_AT + 1)
    assert not lifespan.dropped(3600.0, now=11_200)  # it was known


def test_sockets_that_fell_together_prove_nothing() -> None:
    lifespan = Lifespan()
    for _ in range(100):
        lifespan.dropped(600.0, now=1000.0)
    assert lifespan.limit_s is None
    lifespan.dropped(600.0, now=2000.0)
    lifespan.dropped(600.0, now=3000.0)
    assert lifespan.limit_s == 600.0


def test_drops_at_any_age_are_no_limit() -> None:
    lifespan = Lifespan()
    for number in range(100):
        lifespan.dropped(100.0 + number * 7, now=1000.0 * number)
    assert lifespan.limit_s is None


def test_the_very_young_die_for_other_reasons() -> None:
    lifespan = Lifespan()
    for number in range(10):
        lifespan.dropped(SHORTEST_S - 1, now=100.0 * number)
    assert lifespan.limit_s is None


def test_a_socket_that_outlives_the_limit_proves_it_wrong() -> None:
    lifespan = Lifespan()
    for now in (100, 300, 500):
        lifespan.dropped(100.0, now=now)
    assert lifespan.is_old(95)
    lifespan.dropped(500.0, now=900)
    assert lifespan.limit_s is None
