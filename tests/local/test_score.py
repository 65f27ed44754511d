import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.local.score import Score, word_error_rate, words


@pytest.mark.parametrize(
    ("reference", "hypothesis", "score"),
    [
        ("a b c", "a b c", Score(0, 0, 0, 3)),
        ("a b c", "a x c", Score(1, 0, 0, 3)),
        ("a b c", "a c", Score(0, 1, 0, 3)),
        ("a b c", "a b x c", Score(0, 0, 1, 3)),
        ("a b c", "", Score(0, 3, 0, 3)),
        ("", "a b", Score(0, 0, 2, 0)),
        ("", "", Score(0, 0, 0, 0)),
        ("the cat sat", "a cat sat down", Score(1, 0, 1, 3)),
    ],
)
def test_errors_are_told_apart(reference: str, hypothesis: str, score: Score) -> None:
    assert word_error_rate(reference, hypothesis) == score


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good morning, how can I help?", "good morning how can i help"),
        ("I\u2019d like it.", "i'd LIKE it"),
        ("Twenty-seven", "27"),
        ("19 and 40", "nineteen and forty"),
        ("order 4275", "order four two seven five"),
        ("room 07", "room zero seven"),
        ("7", "seven"),
    ],
)
def test_writing_does_not_count(one: str, other: str) -> None:
    assert words(one) == words(other)


def test_the_rate_is_errors_per_word_said() -> None:
    assert word_error_rate("a b c d", "a b c").rate == 0.25
    assert word_error_rate("", "").rate == 0.0
    assert word_error_rate("", "a").rate == 1.0
    assert word_error_rate("a", "x y").rate == 2.0


def test_scores_of_tracks_add_up() -> None:
    assert Score(1, 0, 0, 4) + Score(0, 1, 2, 6) == Score(1, 1, 2, 10)


@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_the_counts_fit_the_lengths(reference: list[str], hypothesis: list[str]) -> None:
    score = word_error_rate(" ".join(reference), " ".join(hypothesis))
    assert len(reference) - score.deletions + score.insertions == len(hypothesis)
    assert abs(len(reference) - len(hypothesis)) <= score.errors <= max(len(reference), len(hypothesis))
