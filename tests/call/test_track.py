from pathlib import Path

import pytest

from bridge.audio.journal import Journal
from bridge.call.track import IDLE_FILL, Track

FRAME = b"\x01" * 160


class Setup:
    def __init__(self, directory: Path, settled: int | None = None) -> None:
        self.gaps: list[tuple[int, int, int]] = []
        self.journal = Journal(directory / "track")
        self.track = Track("inbound", self.journal, lambda *gap: self.gaps.append(gap), settled)

    def at(self, ms: int | None, now: float = 0.0, audio: bytes = FRAME) -> None:
        self.track.media(None if ms is None else ms * 8, audio, now)


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path)


def test_audio_in_step_is_kept_as_it_is(setup: Setup) -> None:
    for ms in range(0, 100, 20):
        setup.at(ms)
    assert setup.journal.end == 800
    assert setup.track.ms(800) == 100
    assert setup.gaps == []


def test_a_track_that_begins_later_has_no_hole_before_it(setup: Setup) -> None:
    setup.at(3000)
    assert setup.journal.end == 160
    assert setup.track.ms(0) == 3000
    assert setup.gaps == []


@pytest.mark.parametrize("hole_ms", [20, 40, 2580, 4999, 5000])
def test_a_hole_up_to_five_seconds_is_silence(setup: Setup, hole_ms: int) -> None:
    setup.at(0)
    setup.at(20 + hole_ms)
    assert setup.journal.end == 320 + hole_ms * 8
    assert setup.track.ms(setup.journal.end) == 40 + hole_ms
    assert setup.gaps == []


def test_a_longer_hole_is_reported_once_with_its_place(setup: Setup) -> None:
    setup.at(0)
    setup.at(20 + 5001)
    assert setup.gaps == [(20 * 8, 5021 * 8, 160 + IDLE_FILL)]
    assert [(gap.missing_from, gap.clock) for gap in setup.journal.seams.gaps] == [(20 * 8, 5021 * 8)]
    # Whisper hears a short silence instead, which ends the utterance, and times go on after the hole.
    assert setup.journal.end == 320 + IDLE_FILL
    assert setup.track.ms(setup.journal.end) == 5041


@pytest.mark.parametrize("jitter", [1, 10, 19, -1, -19])
def test_timestamps_may_stray_by_less_than_a_frame(setup: Setup, jitter: int) -> None:
    setup.at(0)
    setup.at(20 + jitter)
    setup.at(40)
    assert setup.journal.end == 480


def test_timestamps_that_go_backwards_lose_no_audio(setup: Setup) -> None:
    for ms in (1000, 1020, 500, 520):
        setup.at(ms)
    assert setup.journal.end == 640
    assert setup.gaps == []


def test_audio_without_a_timestamp_follows_the_last(setup: Setup) -> None:
    setup.at(None)
    setup.at(None)
    assert setup.journal.end == 320


def test_a_pause_lets_whisper_hear_silence_once(setup: Setup) -> None:
    setup.at(0, now=10.0)
    assert not setup.track.idle(10.5)
    assert setup.track.idle(10.7)
    assert not setup.track.idle(12.0)
    assert setup.journal.end == 160 + IDLE_FILL


def test_after_a_pause_the_rest_of_the_hole_is_filled(setup: Setup) -> None:
    setup.at(0, now=10.0)
    setup.track.idle(10.7)
    setup.at(20 + 3000, now=13.0)
    assert setup.journal.end == 320 + 3000 * 8
    assert setup.track.ms(setup.journal.end) == 3040


def test_audio_that_was_only_late_belongs_before_the_silence(setup: Setup) -> None:
    setup.at(0, now=10.0)
    setup.track.idle(10.7)
    setup.at(20, now=10.9)
    setup.at(40, now=10.9)
    assert setup.journal.end == 480 + IDLE_FILL
    assert setup.track.ms(setup.journal.end) == 60
    assert setup.gaps == []


def test_a_pause_before_the_first_audio_is_nothing(setup: Setup) -> None:
    assert not setup.track.idle(1000.0)


@pytest.mark.parametrize("missing_ms", [41, 500, 70_000])
def test_between_two_streams_nothing_is_silence(setup: Setup, missing_ms: int) -> None:
    setup.at(0)
    setup.track.new_stream()
    setup.at(20 + missing_ms)
    setup.at(40 + missing_ms)
    assert setup.gaps == [(20 * 8, (20 + missing_ms) * 8, 160 + IDLE_FILL)]
    assert setup.track.ms(setup.journal.end) == 60 + missing_ms


@pytest.mark.parametrize("off_ms", [-30, 0, 19, 40])
def test_two_streams_may_meet_a_little_off(setup: Setup, off_ms: int) -> None:
    setup.at(0)
    setup.track.new_stream()
    setup.at(20 + off_ms)
    assert setup.gaps == []


def test_another_track_has_the_gap_when_its_own_audio_comes(setup: Setup) -> None:
    setup.at(0)
    setup.track.new_stream()
    setup.at(None)
    setup.at(3000)
    assert [gap[:2] for gap in setup.gaps] == [(40 * 8, 3000 * 8)]


def test_a_journal_with_audio_is_gone_on_with(setup: Setup, tmp_path: Path) -> None:
    setup.at(100)
    setup.at(120)
    setup.track.idle(1.0)
    again = Setup(tmp_path)
    assert again.track.received_until == 140 * 8
    assert again.track.idle(0.7)  # what was said is not held back until a stream comes
    again.track.new_stream()
    again.at(2000)
    assert again.gaps == [(140 * 8, 2000 * 8, 320 + 2 * IDLE_FILL)]
    assert again.track.ms(again.journal.end) == 2020


def test_what_never_came_before_the_end_is_told(setup: Setup) -> None:
    setup.track.missing_until(80_000)
    setup.at(0)
    setup.track.missing_until(60 * 8)
    assert setup.gaps == []
    setup.track.missing_until(80_000)
    assert setup.gaps == [(160, 80_000, 160)]


def test_what_lies_between_another_process_and_this_one_is_missing(tmp_path: Path) -> None:
    setup = Setup(tmp_path, settled=2000 * 8)
    assert setup.track.received_until == 2000 * 8
    setup.at(3000)
    assert setup.gaps == [(2000 * 8, 3000 * 8, 0)]
    assert [tuple(seam) for seam in setup.journal.seams.gaps] == [(0, 3000 * 8, 2000 * 8)]
    assert setup.track.ms(setup.journal.end) == 3020
    setup.at(3020)
    assert len(setup.gaps) == 1


def test_what_another_process_has_had_is_not_kept_again(tmp_path: Path) -> None:
    setup = Setup(tmp_path, settled=50 * 8)
    for ms in (0, 20, 40, 60):
        setup.at(ms, audio=bytes([ms + 1]) * 160)
    assert setup.gaps == []
    assert (setup.track.ms(0), setup.track.ms(setup.journal.end)) == (50, 80)
    assert setup.journal.end == 30 * 8


def test_streams_that_meet_leave_no_gap(tmp_path: Path) -> None:
    setup = Setup(tmp_path, settled=1000 * 8)
    setup.at(1040)
    assert setup.gaps == []
    assert setup.track.ms(0) == 1040


def test_what_no_process_has_had_before_the_end_is_told(tmp_path: Path) -> None:
    setup = Setup(tmp_path, settled=1000 * 8)
    setup.track.missing_until(5000 * 8)
    assert setup.gaps == [(1000 * 8, 5000 * 8, 0)]


def test_where_the_last_sound_was(setup: Setup) -> None:
    setup.at(0)
    setup.at(20, audio=b"\xff" * 160)
    setup.at(40, audio=b"\x7e" * 160)
    assert setup.track.loud_until == 160
    assert setup.track.received_until == 480
