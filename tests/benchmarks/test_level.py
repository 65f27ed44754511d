import numpy as np
import pytest

from bridge.local.twilio import Lateness
from tests.benchmarks import level
from tests.benchmarks.level import Level

SENT = np.arange(100, dtype=np.float64) * 0.02
"""Message n is sent at n * 20 ms."""


def test_a_frame_is_whole_with_the_message_that_brings_its_last_sample() -> None:
    # 256 samples are 1.6 messages: frame 0 needs message 2, frame 1 (512 samples) message 4, frame 4 (1280) message 8.
    assert level.whole(SENT)[:5] == pytest.approx([0.02, 0.06, 0.08, 0.12, 0.14])
    assert len(level.whole(SENT)) == 100 * 160 // 256


def test_delays_are_those_of_frames_that_were_whole_in_this_time() -> None:
    came = (level.whole(SENT) + 0.003).tolist()

    found = level.delays(SENT, came, since=0.05, until=0.13, now=9.0)

    assert found == pytest.approx([0.003] * 3)


def test_what_has_not_come_is_at_least_as_late_as_now() -> None:
    came = (level.whole(SENT) + 0.003).tolist()[:2]

    found = level.delays(SENT, came, since=0.05, until=0.13, now=1.0)

    assert found == pytest.approx([0.003, 0.92, 0.88])


def test_figures_of_a_level() -> None:
    measured = Level(
        calls=10,
        since=100.0,
        until=106.0,
        cpu_s=0.6,
        load_cpu_s=1.2,
        sink_cpu_s=0.3,
        rss_kb=400,
        anonymous_kb=300,
        load_average=0.5,
        delays=np.array([0.002] * 98 + [0.004] * 2),
        lateness=Lateness(0.1, 6.0, 7.0),
    )
    finals = {"before": 99.0, "one": 101.0, "two": 102.0, "never posted": 103.0}

    figures = measured.figures(finals, {"before": 99.5, "one": 101.002, "two": 102.004})

    assert figures["cpu_ms_per_call_minute"] == 600
    assert figures["cpu_percent"] == 10
    assert (figures["rss_kb_per_call"], figures["anonymous_kb_per_call"]) == (40, 30)
    assert figures["delay_ms"] == {"p50": 2, "p99": 4, "max": 4}
    assert figures["final_to_post_ms"] == {"p50": 2, "p99": 4, "max": 4}
    assert (figures["finals"], figures["void"], figures["load_cpu_percent"], figures["sink_cpu_percent"]) == (
        *(3, True, 20, 5),
    )


def test_a_level_without_a_frame_has_no_end() -> None:
    none = Level(1, 0, 1, 0, 0, 0, 0, 0, 0, np.array([]), Lateness())

    assert none.p99_ms() == float("inf")
    assert none.figures({}, {})["delay_ms"] is None
