import pytest

from bridge.whisper import breaker as breaker_module
from bridge.whisper import route as module
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.route import Route


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint(f"ws://{number}.example/websocket", "", "v1") for number in range(count)]


def fail(
    route: Route, place: int, now: float = 0.0, *, status: int | None = None, hung: bool = False
) -> float:
    return route.failed(place, now, status=status, retry_after_s=None, hung=hung)


def test_the_fallback_is_asked_after_the_second_failure_and_at_once() -> None:
    route = Route(endpoints(2))
    assert route.choose(0.0) == (0, 0.0)
    fail(route, 0)
    assert route.choose(0.0) == (0, 0.0)
    assert fail(route, 0) == 0.0
    assert route.choose(0.0) == (1, 0.0)


def test_when_both_fail_they_take_turns() -> None:
    route, asked = Route(endpoints(2)), []
    for _ in range(8):
        place, _ = route.choose(0.0)
        asked.append(place)
        fail(route, place)
    assert asked == [0, 0, 1, 1, 0, 0, 1, 1]


def test_a_session_stays_where_it_works() -> None:
    route = Route(endpoints(2))
    fail(route, 0)
    fail(route, 0)
    route.ended(1, worked=True, quickly=False)
    assert route.choose(0.0) == (1, 0.0)
    route.moved(0)
    assert route.choose(0.0) == (0, 0.0)


def test_an_open_breaker_turns_to_the_fallback_without_a_try() -> None:
    both = endpoints(2)
    for _ in range(breaker_module.ENOUGH):
        both[0].breaker.end(both[0].breaker.begin(0.0), 0.0, opened=False)
    route = Route(both)
    assert route.choose(0.0) == (1, 0.0)
    assert Route(both[:1]).choose(0.0) == (0, breaker_module.REST_S)


def test_sockets_that_open_and_do_not_work_are_failures_too() -> None:
    route = Route(endpoints(2))
    route.ended(0, worked=False, quickly=False)
    assert route.choose(0.0)[0] == 0
    route.ended(0, worked=False, quickly=False)
    assert route.choose(0.0)[0] == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_keeps_every_session_away_for_a_minute(status: int) -> None:
    (endpoint,) = endpoints(1)
    fail(Route([endpoint]), 0, 100.0, status=status)
    assert Route([endpoint]).choose(100.0) == (0, 60.0)
    assert Route([endpoint]).choose(160.0) == (0, 0.0)


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_more_and_more_time(status: int) -> None:
    route = Route(endpoints(1))
    waits = [fail(route, 0, status=status) for _ in range(6)]
    bounds = [2, 4, 8, 15, 15, 15]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


def test_a_busy_server_that_says_when_is_believed_within_reason() -> None:
    (endpoint,) = endpoints(1)
    Route([endpoint]).failed(0, 0.0, status=503, retry_after_s=7.0, hung=False)
    assert Route([endpoint]).choose(0.0) == (0, 7.0)
    Route([endpoint]).failed(0, 0.0, status=503, retry_after_s=float("inf"), hung=False)
    assert Route([endpoint]).choose(0.0) == (0, module.RETRY_AFTER_LONGEST_S)


def test_backoff_has_full_jitter_under_a_bound_that_doubles() -> None:
    waits = []
    for _ in range(200):
        route = Route(endpoints(1))
        waits.append([fail(route, 0) for _ in range(9)])
    bounds = [0.5, 1, 2, 4, 8, 8, 8, 8, 8]
    for number, bound in enumerate(bounds):
        column = [row[number] for row in waits]
        assert max(column) <= bound
        assert min(column) < bound / 4 < bound * 3 / 4 < max(column)


def test_handshakes_that_hang_are_given_time_for_a_cold_start() -> None:
    route = Route(endpoints(1))
    timeouts = []
    for _ in range(14):
        timeouts.append(route.open_timeout_s(0))
        fail(route, 0, hung=True)
    assert timeouts == [10, 10, 20, 20, 40, 40, 80, 80, 160, 160, 300, 300, 300, 300]
    route.ended(0, worked=True, quickly=False)
    assert route.open_timeout_s(0) == 10


def test_sockets_dropped_at_once_three_times_are_asked_for_slowly() -> None:
    route = Route(endpoints(1))
    for _ in range(2):
        assert route.ended(0, worked=False, quickly=True) < module.QUICK_BACKOFF_S / 2
        assert not route.is_hopeless(0)
    assert route.ended(0, worked=False, quickly=True) >= module.QUICK_BACKOFF_S / 2
    assert route.is_hopeless(0)
    assert route.ended(0, worked=True, quickly=False) <= module.BACKOFF_FIRST_S
    assert not route.is_hopeless(0)
