"""Word error rate: how far a transcript is from what was really said."""

import re
import unicodedata
from dataclasses import dataclass

_UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


@dataclass(frozen=True, slots=True)
class Score:
    """The cheapest way from a reference to a hypothesis, in words."""

    substitutions: int
    deletions: int
    insertions: int
    words: int
    """Words in the reference."""

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference word; may exceed 1. Without a reference word: 0 if nothing was heard, else 1."""
        if self.words == 0:
            return float(self.errors > 0)
        return self.errors / self.words

    def __add__(self, other: "Score") -> "Score":
        return Score(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )


def words(text: str) -> list[str]:
    """The words of a text without case, punctuation and ways of writing numbers.

    `Twenty-seven`, `27` and `twenty seven` give the same words. A number of three digits or more is
    read digit by digit, as an order number is spoken.
    """
    flat = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    return [spoken for word in _WORD.findall(flat) for spoken in _spoken(word)]


def word_error_rate(reference: str, hypothesis: str) -> Score:
    """Compare a transcript with what was said: Levenshtein distance over normalised words."""
    said, heard = words(reference), words(hypothesis)
    # Each cell is (errors, substitutions, deletions, insertions); tuples compare by errors first, and
    # the rest of the tuple makes the choice between equally cheap ways a fixed one.
    row = [(i, 0, 0, i) for i in range(len(heard) + 1)]
    for word in said:
        left_up = row[0]
        row[0] = (left_up[0] + 1, 0, left_up[2] + 1, 0)
        for i, candidate in enumerate(heard, start=1):
            up, left = row[i], row[i - 1]
            wrong = int(candidate != word)
            best = min(
                (left_up[0] + wrong, left_up[1] + wrong, left_up[2], left_up[3]),
                (up[0] + 1, up[1], up[2] + 1, up[3]),
                (left[0] + 1, left[1], left[2], left[3] + 1),
            )
            left_up, row[i] = up, best
    _, substitutions, deletions, insertions = row[-1]
    return Score(substitutions, deletions, insertions, len(said))


def _spoken(word: str) -> list[str]:
    if not (word.isascii() and word.isdigit()):
        return [word]
    if len(word) > 2 or (len(word) == 2 and word[0] == "0"):
        return [_UNITS[int(digit)] for digit in word]
    number = int(word)
    if number < len(_UNITS):
        return [_UNITS[number]]
    tens, unit = divmod(number, 10)
    return [_TENS[tens]] + ([_UNITS[unit]] if unit else [])
