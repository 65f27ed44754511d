import numpy as np
import pytest

from bridge.local.load import delay
from bridge.local.twilio import Lateness
from tests.benchmarks.level import Delays, Level

SENT = np.arange(100, dtype=np.float64) * 0.02
"""Message n is sent at n * 20 ms."""


def level(delays: Delays, lateness: Lateness = Lateness()) -> Level:  # noqa: B008 - it is frozen
    return Level(
        calls=10,
        since=100.0,
        until=106.0,
        cpu_s=0.6,
        load_cpu_s=1.2,
        sink_cpu_s=0.3,
        rss_kb=400,
        anonymous_kb=300,
        load_average=0.5,
        stolen_s=0.0,
        delays=delays,
        lateness=lateness,
    )


def test_delays_are_those_of_what_was_whole_or_sent_in_this_time() -> None:
    came = (delay.whole(SENT) + 0.003).tolist()

    found = Delays.of([(SENT, came), (SENT, came)], since=0.05, until=0.13, now=9.0)

    assert found.service == pytest.approx([0.003] * 6)
    assert found.completed == pytest.approx([0.01, 0.03, 0.07] * 2)
    assert found.raw == pytest.approx([0.023, 0.043, 0.023, 0.023] * 2)


def test_p99_is_told_for_each_minute() -> None:
    found = Delays(
        service=np.array([0.001, 0.002, 0.009]),
        completed=np.array([1.0, 61.0, 119.0]),
        raw=np.array([]),
    )

    assert found.p99_by_minute() == [1, 9]


def test_what_came_after_the_last_minute_because_the_end_was_late_is_no_minute() -> None:
    found = Delays(
        service=np.full(12_001, 0.002), completed=np.linspace(0, 120.001, 12_001), raw=np.array([])
    )

    assert found.p99_by_minute() == [2, 2]


def test_a_level_on_a_machine_that_somebody_else_uses_is_doubtful() -> None:
    delays = Delays(np.array([0.002]), np.array([1.0]), np.array([0.02]))
    stolen = level(delays)
    stolen.stolen_s = 0.3
    late = level(delays, Lateness(0.1, 90.0, 99.0))
    assert [each.doubtful for each in (level(delays), stolen, late)] == [False, True, True]
    assert stolen.figures({}, {})["stolen_percent"] == 5


def test_figures_of_a_level() -> None:
    late = np.array([0.002] * 98 + [0.004] * 2)
    measured = level(Delays(late, np.linspace(0, 5.9, 100), late + 0.02), Lateness(0.1, 6.0, 7.0))
    finals = {"before": 99.0, "one": 101.0, "two": 102.0, "never posted": 103.0}

    figures = measured.figures(finals, {"before": 99.5, "one": 101.002, "two": 102.004})

    assert figures["cpu_ms_per_call_minute"] == 600
    assert figures["cpu_percent"] == 10
    assert measured.busy == pytest.approx(0.1)
    assert (figures["rss_kb_per_call"], figures["anonymous_kb_per_call"]) == (40, 30)
    assert figures["delay_ms"] == {"p50": 2, "p99": 4, "max": 4}
    assert figures["raw_delay_ms"] == {"p50": 22, "p99": 24, "max": 24}
    assert figures["delay_p99_ms_by_minute"] == [4]
    assert figures["final_to_post_ms"] == {"p50": 2, "p99": 4, "max": 4}
    assert (figures["finals"], figures["void"], figures["load_cpu_percent"], figures["sink_cpu_percent"]) == (
        *(3, True, 20, 5),
    )


def test_a_level_without_a_frame_has_no_end() -> None:
    nothing = level(Delays.of([], since=0, until=1, now=1))

    assert nothing.p99_ms() == float("inf")
    assert nothing.figures({}, {})["delay_ms"] is None
