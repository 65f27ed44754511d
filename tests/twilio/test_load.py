from bridge.twilio.load import MOST, PRIOR, TRUSTED_CALLS, WINDOW_S, Load


class Day:
    """A process, second by second."""

    def __init__(self) -> None:
        self.load = Load()
        self.now = self.cpu_s = 0.0

    def __call__(self, seconds: int, calls: int, per_call: float) -> Load:
        """So many calls for some seconds, each of which costs this much of a core."""
        for _ in range(seconds):
            self.load.sample(self.now, self.cpu_s, calls)
            self.now += 1.0
            self.cpu_s += calls * per_call
        return self.load


def test_what_calls_cost_is_assumed_until_there_are_enough_of_them() -> None:
    assumed = int(MOST / PRIOR)
    assert (Load().capacity, Load().busy) == (assumed, False)
    assert Day()(10, TRUSTED_CALLS - 1, 0.02).capacity == assumed


def test_with_enough_calls_their_own_cost_counts_and_is_remembered() -> None:
    day = Day()
    assert day(10, 50, 0.005).capacity == int(MOST / 0.005)
    assert day(1, 0, 0.0).capacity > TRUSTED_CALLS
    known = day(6, 0, 0.0).capacity
    assert day(100, 1, 0.03).capacity == known


def test_a_slow_machine_carries_fewer_but_always_some() -> None:
    assert Day()(10, 30, 0.02).capacity == int(MOST / 0.02)
    assert Day()(10, 100, 0.5).capacity == TRUSTED_CALLS


def test_busy_is_about_the_last_seconds() -> None:
    day = Day()
    assert day(20, 10, 0.09).busy
    assert not day(int(WINDOW_S) + 2, 10, 0.01).busy


def test_a_single_busy_second_is_not_enough() -> None:
    load = Load()
    for second, used in enumerate([0.0, 0.1, 0.2, 0.3, 0.4, 1.4]):
        load.sample(float(second), used, 5)
    assert not load.busy


def test_nor_is_the_first_second_of_a_process_that_takes_up_many_calls() -> None:
    load = Load()
    assumed = load.capacity
    load.sample(0.0, 3.0, 40)
    load.sample(1.0, 4.0, 40)
    assert (load.busy, load.capacity) == (False, assumed)
    for second in range(2, 7):
        load.sample(float(second), 3.0 + second, 40)
    assert load.busy


def test_a_clock_that_stands_still_harms_nothing() -> None:
    load = Load()
    load.sample(1.0, 1.0, 100)
    load.sample(1.0, 2.0, 100)
    assert not load.busy
