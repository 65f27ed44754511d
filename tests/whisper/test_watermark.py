import pytest

from bridge.whisper.watermark import LEAD, LOUD_PEAK, LOUD_S, QUIET_S, STRETCHES, Watermark

SECOND = 8000
FRAME = 256


def listen(mark: Watermark, seconds: float, *, peak: int = 0, start: int = 0) -> int:
    cursor = start
    while cursor < start + seconds * SECOND:
        mark.sent(cursor, cursor + FRAME, peak)
        mark.age(cursor + FRAME)
        cursor += FRAME
    return cursor


def test_a_final_moves_it_and_nothing_moves_it_back() -> None:
    mark = Watermark()
    mark.finalised(5000)
    mark.finalised(3000)
    assert mark.offset == 5000


def test_silence_moves_it_once_it_has_left_the_servers_buffer() -> None:
    mark = Watermark()
    cursor = listen(mark, QUIET_S)
    assert mark.offset <= FRAME
    cursor = listen(mark, 30, start=cursor)
    assert mark.offset == cursor - QUIET_S * SECOND
    assert not mark.spoken


def test_speech_that_waits_for_its_final_holds_it() -> None:
    mark = Watermark()
    cursor = listen(mark, 10)
    spoken_at = cursor
    cursor = listen(mark, 2, peak=LOUD_PEAK + 1, start=cursor)
    cursor = listen(mark, 80, start=cursor)
    assert mark.offset <= spoken_at
    assert mark.spoken
    mark.finalised(12 * SECOND)
    listen(mark, 60, start=cursor)
    assert mark.offset > 80 * SECOND
    assert not mark.spoken


def test_music_on_hold_moves_it_in_the_end() -> None:
    mark = Watermark()
    cursor = listen(mark, LOUD_S + 60, peak=9000)
    assert mark.offset == cursor - LOUD_S * SECOND
    assert len(mark._loud) == 1


def test_a_new_socket_counts_anew() -> None:
    mark = Watermark()
    listen(mark, 5, peak=9000)
    mark.restart()
    assert not mark.spoken
    mark.lost(70_000)
    assert mark.offset == 70_000


def test_the_tail_of_a_word_is_no_new_speech() -> None:
    mark = Watermark()
    listen(mark, 2, peak=9000)
    mark.finalised(2 * SECOND - 2000)  # Whisper ends the word a quarter of a second too early
    assert not mark.spoken
    listen(mark, 0.2, peak=9000, start=2 * SECOND - 2000)
    assert not mark.spoken


def test_speech_after_a_final_is_spoken_until_its_own() -> None:
    mark = Watermark()
    cursor = listen(mark, 2, peak=9000)
    cursor = listen(mark, 1, start=cursor)
    cursor = listen(mark, 1, peak=9000, start=cursor)
    mark.finalised(2 * SECOND)
    assert mark.spoken
    mark.finalised(cursor)
    assert not mark.spoken


def test_silence_after_a_final_moves_it_as_soon_as_any_silence() -> None:
    mark = Watermark()
    cursor = listen(mark, 3, peak=9000)
    mark.finalised(cursor - 100)
    cursor = listen(mark, 100, start=cursor)
    assert mark.offset == cursor - QUIET_S * SECOND


def test_while_answers_wait_nothing_ages() -> None:
    mark = Watermark()
    for cursor in range(0, 100 * SECOND, FRAME):
        mark.sent(cursor, cursor + FRAME, 0)
    assert mark.offset == 0


def test_the_very_first_word_has_nothing_before_it() -> None:
    mark = Watermark()
    listen(mark, 0.2, peak=9000)
    assert mark.spoken


def test_loud_audio_is_counted_up_to_a_point() -> None:
    mark = Watermark()
    cursor = listen(mark, 1, start=0)
    cursor = listen(mark, 1, peak=9000, start=cursor)
    cursor = listen(mark, 1, start=cursor)
    second = cursor
    cursor = listen(mark, 2, peak=9000, start=cursor)
    assert mark.loud(cursor) == pytest.approx(3 * SECOND, abs=3 * FRAME)
    assert mark.loud(second + SECOND) == pytest.approx(2 * SECOND, abs=3 * FRAME)
    assert mark.loud(0) == mark.speech(cursor) == 0  # nobody has listened to it


def test_what_somebody_listened_to_and_was_no_speech_needs_no_final() -> None:
    mark = Watermark()
    cursor = listen(mark, 40, peak=9000, start=listen(mark, 5))
    span = mark.unheard(cursor)
    assert span == (5 * SECOND + FRAME - 5 * SECOND % FRAME - LEAD, cursor)
    mark.listened(span, [])
    assert (mark.spoken, mark.unheard(cursor), mark.doubted) == (False, None, None)
    cursor = listen(mark, 10, start=cursor)
    assert mark.offset == cursor - QUIET_S * SECOND


def test_speech_that_was_heard_holds_it_and_what_comes_after_is_unheard() -> None:
    mark = Watermark()
    cursor = listen(mark, 20, peak=9000)
    assert mark.unheard(10 * SECOND) == (0, 10 * SECOND)
    mark.listened((0, 10 * SECOND), [(2 * SECOND, 3 * SECOND), (9 * SECOND, 11 * SECOND)])
    assert mark.speech(cursor) == 2 * SECOND
    assert mark.loud(cursor) == 2 * SECOND + cursor - 10 * SECOND
    assert mark.unanswered == SECOND
    assert mark.unheard(cursor) == (9 * SECOND, cursor)
    mark.listened((9 * SECOND, cursor), [])  # what was heard before stays heard
    assert mark.speech(cursor) == mark.loud(cursor) == 2 * SECOND
    mark.restart()
    assert mark.speech(cursor) == 0


def test_a_long_wait_is_listened_to_in_parts() -> None:
    mark = Watermark()
    mark.sent(0, 1000 * SECOND, 9000)
    assert mark.unheard(1000 * SECOND) == (0, LOUD_S * SECOND)


def test_an_utterance_ends_at_a_pause() -> None:
    mark = Watermark()
    assert mark.utterance(0) is None
    cursor = 0
    ends = []
    for _ in range(3):
        cursor = listen(mark, 1, peak=9000, start=cursor)
        ends.append(cursor)
        cursor = listen(mark, 0.5, start=cursor)
    assert mark.utterance(0) == (0, ends[0])
    assert mark.utterance(ends[1] + 10) == (0, ends[1])


def test_it_begins_where_an_earlier_process_was_sure() -> None:
    mark = Watermark(5000)
    assert mark.offset == 5000
    mark.finalised(4000)
    assert mark.offset == 5000


def test_hours_of_waiting_are_remembered_in_bounded_memory() -> None:
    mark = Watermark()
    for number in range(3 * STRETCHES):
        mark.sent(number * SECOND, number * SECOND + FRAME, 9000)
    assert len(mark._loud) == STRETCHES
    assert mark.loud(3 * STRETCHES * SECOND) >= STRETCHES * SECOND


def test_the_quiet_before_the_first_speech_can_be_skipped() -> None:
    mark = Watermark()
    cursor = listen(mark, 10)
    first = cursor
    cursor = listen(mark, 1, peak=9000, start=cursor)
    cursor = listen(mark, 10, start=cursor)
    assert mark.unanswered == first - LEAD
    mark.skip_quiet(cursor)
    assert mark.offset == first - LEAD
    mark.finalised(12 * SECOND)
    mark.skip_quiet(cursor)
    assert mark.offset == cursor - LEAD


def test_loud_audio_that_it_moved_over_is_doubted_until_a_final_after_it() -> None:
    mark = Watermark()
    cursor = listen(mark, LOUD_S - 10, start=listen(mark, 5, peak=9000))
    seen = [mark.doubted]
    cursor = listen(mark, 20, start=cursor)
    seen.append(mark.doubted)
    mark.finalised(cursor)
    assert [*seen, mark.doubted] == [None, 0, None]
