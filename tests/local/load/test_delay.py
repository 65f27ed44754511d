import numpy as np
import pytest

from bridge.local.load import delay

SENT = np.arange(100, dtype=np.float64) * 0.02
"""Message n is sent at n * 20 ms."""


def test_a_frame_is_whole_with_the_message_that_brings_its_last_sample() -> None:
    # 256 samples are 1.6 messages: frame 0 needs message 2, frame 1 (512 samples) message 4, frame 4 (1280) message 8.
    assert delay.whole(SENT)[:5] == pytest.approx([0.02, 0.06, 0.08, 0.12, 0.14])
    assert len(delay.whole(SENT)) == 100 * 160 // 256


def test_what_has_not_come_is_at_least_as_late_as_now() -> None:
    came = (delay.whole(SENT) + 0.003).tolist()[:2]

    completed, late = delay.service(SENT, came, now=1.0)

    assert completed[:4] == pytest.approx([0.02, 0.06, 0.08, 0.12])
    assert late[:4] == pytest.approx([0.003, 0.003, 0.92, 0.88])
    assert late[-1] == 0


def test_frames_too_many_are_not_looked_at() -> None:
    came = [*delay.whole(SENT[:4]), 5.0, 6.0]

    assert delay.service(SENT[:4], came, now=9.0)[1].tolist() == [0, 0]


def test_raw_has_the_wait_for_a_full_frame_in_it() -> None:
    sent, late = delay.raw(SENT[:10], delay.whole(SENT[:10]) + 0.001, now=9.0)

    assert sent.tolist() == SENT[:9].tolist()[: len(sent)]
    assert late[:8] * 1000 == pytest.approx([21, 41, 21, 21, 41, 21, 21, 1])


def test_nothing_has_no_summary() -> None:
    assert delay.spread(np.array([])) is None
    assert delay.spread(np.array([0.003, 0.001, 0.002])) == {"p50": 2, "p99": 3, "max": 3}
