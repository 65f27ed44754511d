from hypothesis import given
from hypothesis import strategies as st

from bridge.transcript.loudness import BLOCK, KEPT, Loudness


def test_the_highest_sample_of_a_stretch() -> None:
    loudness = Loudness()
    loudness.sent(0, 4 * BLOCK, 50)
    loudness.sent(4 * BLOCK, 5 * BLOCK, 9000)
    loudness.sent(5 * BLOCK, 9 * BLOCK, 60)
    assert loudness.peak(0, 4 * BLOCK) == 50
    assert loudness.peak(2 * BLOCK, 6 * BLOCK) == 9000
    assert loudness.peak(5 * BLOCK, 7 * BLOCK) == 60
    assert loudness.peak(5 * BLOCK, 7 * BLOCK, margin=BLOCK) == 9000
    assert loudness.peak(0, 9 * BLOCK, margin=10**9) == 9000


def test_what_was_not_sent_is_not_known() -> None:
    loudness = Loudness()
    assert loudness.peak(0, 1) is None
    loudness.sent(100, 1000, 5)
    assert loudness.peak(50, 900) is None
    assert loudness.peak(200, 1001) is None
    assert loudness.peak(300, 300) is None
    assert loudness.peak(100, 1000) == 5


def test_audio_that_is_sent_again_is_as_loud_as_it_was() -> None:
    loudness = Loudness()
    loudness.sent(0, BLOCK, 7000)
    loudness.sent(BLOCK, 2 * BLOCK, 20)
    loudness.sent(0, BLOCK // 2, 3)
    assert loudness.peak(0, BLOCK) == 7000
    assert loudness.peak(BLOCK, 2 * BLOCK) == 20


def test_after_a_leap_the_past_is_not_known() -> None:
    loudness = Loudness()
    loudness.sent(0, BLOCK, 7000)
    loudness.sent(3 * BLOCK, 4 * BLOCK, 20)
    assert loudness.peak(0, BLOCK) is None
    assert loudness.peak(3 * BLOCK, 4 * BLOCK, margin=10 * BLOCK) == 20


def test_what_is_long_past_is_forgotten() -> None:
    loudness = Loudness()
    for block in range(3 * KEPT):
        loudness.sent(block * BLOCK, (block + 1) * BLOCK, 1000 + block)
    end = 3 * KEPT * BLOCK
    assert loudness.peak(0, BLOCK) is None
    assert loudness.peak(end - 2 * BLOCK, end - BLOCK) == 1000 + 3 * KEPT - 2
    assert loudness.peak(end - (KEPT - 1) * BLOCK, end) == 1000 + 3 * KEPT - 1


def test_more_at_once_than_is_kept() -> None:
    loudness = Loudness()
    loudness.sent(0, 2 * KEPT * BLOCK, 30)
    assert loudness.peak(0, BLOCK) is None
    assert loudness.peak(2 * KEPT * BLOCK - BLOCK, 2 * KEPT * BLOCK) == 30


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 32768)), min_size=1, max_size=60),
    st.integers(0, 50_000),
    st.integers(1, 50_000),
    st.integers(0, 5000),
)
def test_no_loud_sample_is_overlooked(
    sends: list[tuple[int, int]], start: int, length: int, margin: int
) -> None:
    loudness, at, heard = Loudness(), 0, []
    for samples, peak in sends:
        loudness.sent(at, at + samples, peak)
        heard.append((at, at + samples, peak))
        at += samples
    found = loudness.peak(start, start + length, margin)
    if start + length > at:
        assert found is None
    else:
        assert found is not None
        assert found >= max(p for begin, end, p in heard if begin < start + length and end > start)
        around = range(start - margin - BLOCK, start + length + margin + BLOCK)
        assert found <= max(p for begin, end, p in heard if begin < around.stop and end > around.start)
