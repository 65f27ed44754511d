"""When an endpoint is taken to be down, how it is tried, and how it is let back."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.webhook import breaker as figures
from bridge.webhook import schedule
from bridge.webhook.breaker import Breaker

MOST = 100


def lanes(count: int, name: str = "lane") -> list[str]:
    return [f"{name}{n}" for n in range(count)]


def attempt(breaker: Breaker, lane: str, now: float, *, success: bool) -> None:
    breaker.take(lane, now)
    assert breaker.admits(lane)
    (breaker.succeeded if success else breaker.failed)(lane, now)
    breaker.put_down(lane)


def fail(breaker: Breaker, count: int, now: float, name: str = "lane") -> None:
    for lane in lanes(count, name):
        attempt(breaker, lane, now, success=False)


def opened(now: float) -> Breaker:
    """One that opened at `now`."""
    breaker = Breaker(MOST)
    # Half a minute apart, so that only the lanes without a success count, not the share of failures.
    for n, lane in enumerate(lanes(20)):
        attempt(breaker, lane, now - (19 - n) * 30, success=False)
    assert breaker.is_open
    return breaker


def recovering(now: float) -> Breaker:
    """One whose endpoint accepted something at `now`, after an outage."""
    breaker = opened(now - 5)
    attempt(breaker, "probe", now, success=True)
    assert not breaker.is_open
    return breaker


def test_an_endpoint_is_calm_unless_it_is_down_or_what_waited_is_let_through() -> None:
    breaker = Breaker(MOST)
    assert breaker.is_calm
    fail(breaker, 3, 0.0)
    assert breaker.is_calm
    assert not opened(100.0).is_calm
    breaker = recovering(100.0)
    assert not breaker.is_calm
    breaker.room(100.0 + figures.PACED_S)
    assert breaker.is_calm


def test_it_has_the_lanes_in_work() -> None:
    breaker = Breaker(MOST)
    breaker.take("one", 0.0)
    assert (breaker.has("one"), breaker.has("another")) == (True, False)
    breaker.put_down("one")
    assert not breaker.has("one")


def test_20_lanes_that_fail_with_no_success_open_it() -> None:
    breaker = Breaker(MOST)
    for n, lane in enumerate(lanes(19)):
        attempt(breaker, lane, n * 30.0, success=False)
    assert not breaker.is_open
    attempt(breaker, "another", 600.0, success=False)
    assert breaker.is_open


def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = Breaker(MOST)
    for n, lane in enumerate(lanes(38)):
        attempt(breaker, lane, n * 30.0, success=False)
        if n == 18:
            attempt(breaker, "well", n * 30.0, success=True)
    assert not breaker.is_open


def test_one_lane_that_always_fails_opens_nothing() -> None:
    breaker = Breaker(MOST)
    for n in range(1000):
        attempt(breaker, "poisoned", n * 0.1, success=False)
    assert not breaker.is_open
    assert breaker.room(100.0) == figures.UNPROVEN - 1


def test_7_of_the_last_10_lanes_open_it_whatever_came_in_between() -> None:
    breaker = Breaker(MOST)
    for lane in lanes(3, "well"):
        attempt(breaker, lane, 0.0, success=True)
    fail(breaker, 6, 1.0)
    assert breaker.room(1.0) > 0, "nine lanes are too few"
    attempt(breaker, "tenth", 2.0, success=False)
    assert breaker.is_open


def test_less_than_70_percent_do_not_open_it() -> None:
    breaker = Breaker(MOST)
    for n in range(100):
        for lane in lanes(4, "well"):
            attempt(breaker, lane, float(n), success=True)
        fail(breaker, 6, float(n))
    assert not breaker.is_open


def test_only_a_lanes_latest_result_counts() -> None:
    breaker = Breaker(MOST)
    fail(breaker, 9, 0.0)
    for lane in lanes(9):
        attempt(breaker, lane, 1.0, success=True)
    for lane in lanes(9, "other"):
        attempt(breaker, lane, 2.0, success=False)
    assert not breaker.is_open, "9 of 18"


def test_results_older_than_30_s_do_not_count() -> None:
    breaker = Breaker(MOST)
    attempt(breaker, "well", 0.0, success=True)
    fail(breaker, 8, 1.0)
    attempt(breaker, "late", 31.5, success=False)
    attempt(breaker, "later", 31.6, success=False)
    assert not breaker.is_open, "two lanes within 30 s"


def test_while_it_is_open_there_is_room_for_nobody_and_then_for_one() -> None:
    breaker = opened(100.0)
    assert (breaker.room(104.9), breaker.moves_at(104.9)) == (0, 105.0)
    assert (breaker.room(105.0), breaker.moves_at(105.0)) == (1, None)
    breaker.take("probe", 105.0)
    assert breaker.room(106.0) == 0
    assert breaker.admits("probe")
    assert not breaker.admits("other")


def test_each_failed_probe_doubles_the_wait_up_to_a_minute() -> None:
    breaker, now = opened(0.0), 0.0
    for wait_s in (5, 10, 20, 40, 60, 60):
        assert breaker.moves_at(now) == now + wait_s
        now += wait_s
        attempt(breaker, f"probe{now}", now, success=False)


def test_a_probe_whose_event_failed_before_prolongs_nothing() -> None:
    breaker, now = opened(0.0), 5.0
    for again, wait_s in ((False, 10), (False, 20), (True, 5), (True, 5), (False, 10)):
        breaker.take("probe", now)
        breaker.failed("probe", now, again=again)
        breaker.put_down("probe")
        assert breaker.moves_at(now) == now + wait_s
        now += wait_s


@pytest.mark.parametrize("count", [20, 60, 200])
def test_lanes_that_always_fail_hold_up_a_healthy_one_for_seconds(count: int) -> None:
    jitter = random.Random(1).random
    breaker, now, first = Breaker(MOST), 0.0, 6 * 3600.0
    bad = {lane: (n * 30.0, 0) for n, lane in enumerate(lanes(count, "bad"))}  # when it is due, failures
    delays: list[float] = []
    while len(delays) < 20:
        due = sorted((failures > 0, at, lane) for lane, (at, failures) in bad.items() if at <= now)
        published = first + 3 * len(delays)
        if published <= now:
            due.insert(0, (False, published, "well"))
        taken = [lane for *_, lane in due[: breaker.room(now)]]
        for lane in taken:
            breaker.take(lane, now)
        for lane in filter(breaker.admits, taken):
            if lane == "well":
                breaker.succeeded(lane, now)
                delays.append(now - published)
            else:
                failures = bad[lane][1] + 1
                breaker.failed(lane, now, again=failures > 1)
                bad[lane] = (now + schedule.wait_s(failures, jitter), failures)
        for lane in taken:
            breaker.put_down(lane)
        now += 0.25
    assert max(delays) <= 6


def test_a_probe_that_came_to_no_result_leaves_its_place_to_another() -> None:
    breaker = opened(0.0)
    breaker.take("probe", 5.0)
    breaker.put_down("probe")
    assert breaker.is_open
    assert breaker.room(5.0) == 1


def test_only_the_probe_closes_or_prolongs_it() -> None:
    breaker = Breaker(MOST)
    before = lanes(20, "before")
    for lane in before:
        breaker.take(lane, 0.0)
    fail(breaker, 10, 0.0)
    breaker.failed(before[0], 4.0)
    breaker.succeeded(before[1], 4.0)
    assert breaker.is_open
    assert not breaker.admits(before[1])
    assert breaker.moves_at(4.0) == 5.0
    attempt(breaker, "probe", 5.0, success=True)
    for lane in before[2:]:
        breaker.failed(lane, 6.0)
    assert breaker.room(6.0) > 0, "posts from before say nothing about now"


def test_after_it_closed_50_lanes_a_second_are_taken_up() -> None:
    breaker, now, taken = recovering(0.0), 0.0, 0
    while now < 5.0:
        for _ in range(breaker.room(now)):
            attempt(breaker, f"lane{taken}", now, success=True)
            taken += 1
        at = breaker.moves_at(now)
        assert at is not None
        assert now < at <= now + 0.11
        now = at
    assert 245 <= taken <= 255


def test_the_pace_ends_when_what_waited_is_through() -> None:
    breaker = recovering(0.0)
    for n in range(breaker.room(0.1)):
        attempt(breaker, f"lane{n}", 0.1, success=True)
    attempt(breaker, "lane", 0.9, success=True)
    assert breaker.room(1.05) <= figures.BURST
    assert breaker.room(1.2) == figures.UNPROVEN


def test_the_pace_ends_in_any_case() -> None:
    # Lanes that are due more often than they are let through would wait for each other for ever.
    breaker = recovering(0.0)
    for step in range(299):
        now = step / 10
        for n in range(breaker.room(now)):
            attempt(breaker, f"lane{n}", now, success=True)
        assert breaker.room(now) == 0
    assert breaker.room(30.0) == figures.UNPROVEN


def test_one_that_opens_again_before_all_was_through_waits_longer() -> None:
    breaker = recovering(100.0)
    fail(breaker, 9, 100.5)
    assert breaker.moves_at(101.0) == 110.5
    breaker = recovering(100.0)
    assert breaker.room(200.0) == figures.UNPROVEN
    fail(breaker, 10, 200.0)
    assert breaker.moves_at(201.0) == 205.0


def test_until_something_was_accepted_40_lanes_are_taken_up() -> None:
    breaker = Breaker(MOST)
    for lane in lanes(40):
        assert breaker.room(0.0)
        breaker.take(lane, 0.0)
    assert breaker.room(0.0) == 0
    breaker.succeeded("lane7", 1.0)
    assert breaker.room(1.0) == 40
    for lane in lanes(40, "more"):
        breaker.take(lane, 1.0)
    breaker.succeeded("lane8", 1.0)
    assert breaker.room(1.0) == MOST - 80


def test_a_lane_that_goes_on_takes_no_room_from_another() -> None:
    breaker = Breaker(MOST)
    for lane in lanes(40):
        breaker.take(lane, 0.0)
    for lane in lanes(40):
        breaker.succeeded(lane, 1.0)
        assert breaker.admits(lane)
    assert breaker.room(1.0) == 40


def test_it_rests_when_there_is_nothing_to_remember() -> None:
    breaker = Breaker(MOST)
    assert breaker.rests(0.0)
    attempt(breaker, "lane", 0.0, success=True)
    assert breaker.rests(0.0)
    breaker.take("lane", 1.0)
    assert not breaker.rests(1.0)
    breaker.failed("lane", 1.0)
    breaker.put_down("lane")
    assert not breaker.rests(800.0), "a lane that goes on failing is still counted"
    assert breaker.rests(901.0)
    breaker = opened(0.0)
    assert not breaker.rests(800.0)
    assert breaker.rests(900.0), "nothing of the endpoint was due for so long"


def test_what_it_remembers_is_bounded() -> None:
    breaker = Breaker(MOST)
    for lane in lanes(5000):
        attempt(breaker, lane, 0.0, success=True)
    assert len(breaker._latest) <= figures.REMEMBERED


class Life(RuleBasedStateMachine):
    """Any course of events: the bounds hold, and nobody waits for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(30)
        self.now = 0.0
        self.working: set[str] = set()
        self.posting: set[str] = set()
        self.unproven: set[str] = set()
        """Lanes that were taken up since the last success, and not given back without a result."""

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.5, 4.0, 31.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(first=st.integers(0, 60), count=st.integers(1, 40))
    def take_up(self, first: int, count: int) -> None:
        for lane in lanes(120)[first : first + min(count, self.breaker.room(self.now))]:
            if lane not in self.working:
                assert self.breaker.is_open or len(self.unproven) < figures.UNPROVEN
                self.unproven.add(lane)
                self.breaker.take(lane, self.now)
                self.working.add(lane)

    @rule(first=st.integers(0, 30), count=st.integers(1, 40))
    def post(self, first: int, count: int) -> None:
        for lane in sorted(self.working - self.posting)[first : first + count]:
            if self.breaker.admits(lane):
                self.posting.add(lane)
            else:
                self.unproven.discard(lane)
                self.working.remove(lane)
                self.breaker.put_down(lane)

    @rule(first=st.integers(0, 30), count=st.integers(1, 40), share=st.sampled_from([0, 1, 5, 10]))
    def results(self, first: int, count: int, share: int) -> None:
        for n, lane in enumerate(sorted(self.posting)[first : first + count]):
            self.posting.remove(lane)
            if n % 10 < share:
                self.breaker.succeeded(lane, self.now)
                self.unproven.clear()
            else:
                self.breaker.failed(lane, self.now)
                self.working.remove(lane)
                self.breaker.put_down(lane)

    @precondition(lambda self: self.working)
    @rule()
    def end_of_all(self) -> None:
        """Whatever happened: when nothing is in work, somebody may be taken up in a minute at the latest."""
        for lane in self.working:
            self.breaker.put_down(lane)
        self.unproven -= self.working
        self.working.clear()
        self.posting.clear()
        at = self.breaker.moves_at(self.now)
        if at is not None:
            assert self.now < at <= self.now + figures.OPEN_MOST_S
            self.now = at
        assert self.breaker.room(self.now) >= 1

    @invariant()
    def room_is_within_bounds(self) -> None:
        room = self.breaker.room(self.now)
        assert 0 <= room <= min(figures.UNPROVEN, 30 - self.breaker.working)
        assert self.breaker.working == len(self.working)
        if self.breaker.is_open:
            assert room + sum(self.breaker.admits(lane) for lane in self.working) <= 1

    @invariant()
    def a_full_breaker_waits_for_somebody_or_for_a_time(self) -> None:
        if not self.breaker.room(self.now) and not self.working:
            assert self.breaker.moves_at(self.now) is not None


Life.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase
