from bridge.transcript.heard import Heard, HeardWord
from bridge.transcript.published import LOOSE, PAUSE, RUNS, Published

WORD = 1600


def heard(*words: tuple[str, int]) -> Heard:
    """A final of words of 200 ms that begin at these offsets."""
    timed = tuple(HeardWord(word, start, start + WORD, None) for word, start in words)
    return Heard(" ".join(word for word, _ in words), timed[0].start, timed[-1].end, timed, None, None, ())


def test_what_lies_before_is_judged_by_its_middle() -> None:
    published = Published(8000)
    assert published.has(7000, 8998)
    assert not published.has(7000, 9000)


def test_what_a_final_of_this_socket_covered_is_not_new() -> None:
    published = Published()
    published.add(heard(("a", 8000), ("b", 10_000)))
    assert published.has(8040, 9640, "A")
    assert published.has(10_000, 11_600, "b")
    assert not published.has(12_000, 13_600)
    assert not published.has(4000, 5600)


def test_what_was_said_in_a_pause_between_is_new() -> None:
    published = Published()
    published.add(heard(("a", 8000), ("b", 8000 + WORD + PAUSE + 4000)))
    assert not published.has(8000 + WORD + 1000, 8000 + WORD + 2600)


def test_word_times_that_overlap_a_little_are_not_the_same_audio() -> None:
    published = Published()
    published.add(heard(("two", 8000)))
    start = 8000 + WORD - 400
    assert start + 100 < 8000 + WORD
    assert not published.has(start, start + 200, "three")
    assert published.has(start, start + 200, "Two!")  # unless it is the same word again
    assert LOOSE == 800


def test_a_final_without_words_counts_as_a_whole() -> None:
    published = Published()
    published.add(Heard("some words", 8000, 16_000, (), None, None, ()))
    assert published.has(8000, 16_000)
    assert not published.has(16_000, 18_000)


def test_the_latest_final_before_a_drop_counts_until_something_is_said() -> None:
    published = Published(8000, "to pay by card.")
    assert published.ends_with("Card")
    published.add(heard(("please", 8000)))
    assert not published.ends_with("card")
    assert not Published().ends_with("card")


def test_memory_is_bounded() -> None:
    published = Published()
    for number in range(10 * RUNS):
        published.add(heard(("a", number * 100_000)))
    assert len(published._runs) == RUNS
