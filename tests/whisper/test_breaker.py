from bridge.whisper.breaker import ENOUGH, PROBE_S, PROBES, REST_S, WINDOW_S, Breaker


def connect(breaker: Breaker, now: float, *, opened: bool) -> None:
    breaker.end(breaker.begin(now), now, opened=opened)


def tripped(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(ENOUGH):
        connect(breaker, now, opened=False)
    return breaker


def test_a_single_call_that_cannot_get_through_trips_nothing() -> None:
    breaker = Breaker()
    for second in range(100):
        connect(breaker, second * 2.0, opened=False)
        assert breaker.wait_s(second * 2.0) == 0


def test_half_of_twenty_connects_trip_it_for_a_while() -> None:
    breaker = Breaker()
    for number in range(ENOUGH):
        assert breaker.wait_s(1.0) == 0
        connect(breaker, 1.0, opened=number % 2 == 0)
    assert breaker.wait_s(1.0) == REST_S
    assert breaker.wait_s(REST_S) == 1.0
    assert breaker.wait_s(1.0 + REST_S) == 0


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = Breaker()
    for _ in range(ENOUGH - 1):
        connect(breaker, 0.0, opened=False)
    connect(breaker, WINDOW_S + 0.1, opened=False)
    assert breaker.wait_s(WINDOW_S + 0.1) == 0


def test_then_two_may_try_and_one_success_lets_everybody_follow() -> None:
    breaker = tripped()
    attempts = [breaker.begin(REST_S) for _ in range(PROBES)]
    assert breaker.wait_s(REST_S) > 0
    breaker.end(attempts[0], REST_S, opened=True)
    assert breaker.wait_s(REST_S) == 0
    for _ in range(100):
        breaker.begin(REST_S)
        assert breaker.wait_s(REST_S) == 0


def test_a_probe_that_fails_means_another_rest() -> None:
    breaker = tripped()
    connect(breaker, REST_S, opened=False)
    assert breaker.wait_s(REST_S) == REST_S


def test_an_abandoned_probe_makes_room() -> None:
    breaker = tripped()
    attempts = [breaker.begin(REST_S) for _ in range(PROBES)]
    breaker.cancel(attempts[0])
    assert breaker.wait_s(REST_S) == 0


def test_handshakes_that_hung_since_before_are_no_probes() -> None:
    breaker = Breaker()
    hung = [breaker.begin(0.0) for _ in range(50)]
    for _ in range(ENOUGH):
        connect(breaker, 0.0, opened=False)
    assert breaker.wait_s(REST_S) == 0
    breaker.end(hung[0], REST_S, opened=False)
    assert breaker.wait_s(REST_S) == 0
    breaker.end(hung[1], REST_S, opened=True)  # but one that opens proves that the endpoint lives
    for _ in range(PROBES + 1):
        breaker.begin(REST_S)
    assert breaker.wait_s(REST_S) == 0


def test_sockets_that_open_and_drop_at_once_trip_it_too() -> None:
    breaker = Breaker()
    for _ in range(ENOUGH // 2):
        connect(breaker, 0.0, opened=True)
        breaker.useless(0.0)
    assert breaker.wait_s(0.0) == REST_S


def test_an_endpoint_that_asks_for_time_gets_it() -> None:
    breaker = Breaker()
    breaker.rest(60.0)
    breaker.rest(30.0)
    assert breaker.wait_s(10.0) == 50.0
    connect(breaker, 10.0, opened=True)
    assert breaker.wait_s(10.0) == 50.0


def test_probes_that_hang_keep_nobody_from_trying() -> None:
    breaker = tripped()
    now = REST_S
    for _ in range(3):
        hung = [breaker.begin(now) for _ in range(PROBES)]
        assert breaker.wait_s(now + PROBE_S - 0.1) > 0
        now += PROBE_S
        assert breaker.wait_s(now) == 0
    breaker.end(hung[0], now, opened=True)  # its own session waited for it
    assert breaker.wait_s(now) == 0
