"""Digits in a text, written or spoken: `4242 four two double oh` is one run of eight digits.

Number words are English; digits are those of any script. A number cannot be followed from one final into the next.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

_UNITS: Final = dict(zip("one two three four five six seven eight nine".split(), "123456789", strict=True))  # noqa: SIM905 - reads as it is said
_ZEROS: Final = frozenset({"zero", "oh", "o", "nought", "naught"})
_TEENS: Final = dict(
    zip(
        "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(),  # noqa: SIM905 - as above
        map(str, range(10, 20)),
        strict=True,
    )
)
_TENS: Final = dict(
    zip(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),  # noqa: SIM905 - as above
        map(str, range(20, 100, 10)),
        strict=True,
    )
)
NUMBER_WORDS: Final = _UNITS | dict.fromkeys(_ZEROS, "0") | {"niner": "9"} | _TEENS | _TENS
"""What a word says as digits."""

_EXCLAMATIONS: Final = frozenset({"oh", "o"})  # "Oh, five people" is no run of digits
_TIMES: Final = {"double": 2, "triple": 3, "treble": 3, "quadruple": 4}

_FILLERS: Final = frozenset("uh um er erm ah hm hmm mm dash hyphen minus space dot point okay ok".split())  # noqa: SIM905 - as above
_JOINERS: Final = frozenset({"and", "then", "next", "again", "slash"})
_MOST_FILLERS: Final = 3  # "uh, okay, um": more than this is talk

_TOKEN: Final = re.compile(r"\d+|[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SIGNS: Final = r"\s.,;()+#*\u2026\u00b7\-\u2010-\u2015"  # with dots and dashes of every width
_GAP: Final = re.compile(f"[{_SIGNS}]{{0,8}}")
_LOOSE_GAP: Final = re.compile(f"[{_SIGNS}/]{{0,8}}")

_GLUED: Final = 4
"""A group of fewer digits that touches letters is a name (`B12`, `4th`), a longer one is a number."""


class Item(NamedTuple):
    """Digits that are one word or one group, and the characters they stand for."""

    digits: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Run:
    """Digits with nothing but separators between them."""

    items: tuple[Item, ...]
    international: bool = False
    """A plus stands before it, written or spoken."""
    last: bool = False
    """The text ends with it: more digits may be to come."""

    @property
    def digits(self) -> str:
        """All of them."""
        return "".join(item.digits for item in self.items)

    @property
    def start(self) -> int:
        """Where in the text it begins."""
        return self.items[0].start

    @property
    def end(self) -> int:
        """Where in the text it ends."""
        return self.items[-1].end


def runs(text: str, *, loose: bool = False) -> list[Run]:
    """The runs of digits in `text`, in order. Never raises; takes time in proportion to the text.

    Spaces, hyphens, full stops and commas do not end a run, nor do a few "um"s; if `loose`, neither do "and",
    "then" and slashes, which stand between numbers as well as within them.
    """
    reader = _Reader(text, loose=loose)
    for token in _TOKEN.finditer(text):
        reader.read(token)
    reader.close(last=True)
    return reader.runs


def tokens(text: str) -> Iterator[re.Match[str]]:
    """Groups of digits and words of letters, in order."""
    return _TOKEN.finditer(text)


def written(token: str) -> str:
    """Digits of any script as those of ASCII."""
    return token if token.isascii() else "".join(str(unicodedata.decimal(c)) for c in token)


class _Reader:
    """Reads a text's tokens into runs."""

    def __init__(self, text: str, *, loose: bool) -> None:
        self.runs: list[Run] = []
        self._text = text
        self._gap = _LOOSE_GAP if loose else _GAP
        self._fillers = _FILLERS | _JOINERS if loose else _FILLERS
        self._items: list[Item] = []  # of the run that is open
        self._filled = 0  # fillers since the last digit
        self._plus = self._international = False
        self._times: tuple[int, int] | None = (
            None  # "double" was the last word: how often, and where it stands
        )
        self._tens = False  # "forty" was the last word, which takes a unit
        self._end = 0  # of the last token
        self._letters = False  # the last token was a word

    def read(self, token: re.Match[str]) -> None:
        start, end = token.span()
        gap, after_word = self._text[self._end : start], self._letters
        touches = not gap and self._end > 0
        word = token.group()
        self._end, self._letters = end, not word[0].isdecimal()
        if "+" in gap or not self._gap.fullmatch(gap):
            self.close()
            self._plus = "+" in gap[-2:]
        if not self._letters:
            if len(word) < _GLUED and touches and after_word:
                self.close()
            else:
                self._add(written(word), start, end)
        elif touches and not after_word:
            if self._items and len(self._items[-1].digits) < _GLUED:
                self._items.pop()
            self.close()
        else:
            self._word(word.casefold(), start, end, gap)

    def close(self, *, last: bool = False) -> None:
        if self._items:
            self.runs.append(Run(tuple(self._items), self._international, last))
            self._items = []
        self._filled = 0
        self._times = None
        self._tens = self._plus = False

    def _word(self, word: str, start: int, end: int, gap: str) -> None:
        if word in _UNITS and self._tens and gap in {" ", "-"}:  # forty-two
            last = self._items[-1]
            self._items[-1] = Item(last.digits[:-1] + _UNITS[word], last.start, end)
            self._tens = False
        elif word in NUMBER_WORDS and (self._items or word not in _EXCLAMATIONS or self._goes_on(end)):
            self._add(NUMBER_WORDS[word], start, end)
            self._tens = word in _TENS
        elif word in _TIMES:
            self._times = (_TIMES[word], start)
        elif word == "hundred" and self._items and gap == " " and len(self._items[-1].digits) <= 2:
            last = self._items[-1]
            self._items[-1] = Item(last.digits + "00", last.start, end)
            self._tens = False
        elif self._items and word in self._fillers and self._filled < _MOST_FILLERS:
            self._filled += 1
            self._tens = False
        else:
            self.close()
            self._plus = word == "plus"

    def _goes_on(self, end: int) -> bool:
        return self._text[end : end + 1] in {" ", "-"}

    def _add(self, digits: str, start: int, end: int) -> None:
        if self._times is not None:
            times, start = self._times
            digits *= times if len(digits) == 1 else 1
        if not self._items:
            self._international = self._plus
        self._items.append(Item(digits, start, end))
        self._filled = 0
        self._times = None
        self._tens = self._plus = False
