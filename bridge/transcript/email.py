"""E-mail addresses in a text, written (`ann@example.com`) or spoken (`ann dot lee at example dot com`). Pure.

The spoken form is English. What stands before "at" is not always a name ("look at example dot com"): words that
usually stand there are known.
"""

import re
from collections.abc import Iterator
from typing import Final

from bridge.transcript.digits import NUMBER_WORDS

LONGEST_LOCAL: Final = 64
"""Characters before the `@`: RFC 5321, section 4.5.3.1.1."""

_LABEL: Final = r"[\w-]{1,63}"  # RFC 1035, section 2.3.4
_AT_SIGN: Final = re.compile(rf"\s?@\s?(?:{_LABEL}(?:\.{_LABEL}){{0,6}})?")
_LOCAL: Final = re.compile(r"[\w.+%'-]+\Z")
_PROVIDERS: Final = "gmail|googlemail|yahoo|hotmail|outlook|icloud|aol|proton|protonmail|gmx|comcast|verizon"
_AT_WORD: Final = re.compile(
    rf"\bat\s(?:{_LABEL}(?:(?:\sdot\s|\.){_LABEL}){{0,5}}(?:\sdot\s|\.)[^\W\d_]{{2,24}}|(?:{_PROVIDERS})\b)",
    re.IGNORECASE,
)
_JOINS: Final = frozenset({"dot", "period", "point", "underscore", "dash", "hyphen", "minus", "plus"})
_NO_NAMES: Final = frozenset(
    "look looking looked me us you it them him her is are was website site page online found find available visit "  # noqa: SIM905 - it reads
    "work works working worked shop shopping bought order ordered meet apply book booked job jobs bank".split()
)


def addresses(text: str) -> Iterator[tuple[int, int]]:
    """Where the addresses in `text` begin and end. An `@` at the end may lack its domain yet."""
    for match in _AT_SIGN.finditer(text):
        before = _LOCAL.search(text, max(0, match.start() - LONGEST_LOCAL), match.start())
        yield (before.start() if before else match.start()), match.end()
    for match in _AT_WORD.finditer(text):
        start = _said_before(text, match.start())
        if start < match.start():
            yield start, match.end()


def _said_before(text: str, end: int) -> int:
    """Where the name before the "at" at `end` begins; `end` if it is none."""
    begin = max(0, end - 3 * LONGEST_LOCAL)
    words = list(re.finditer(r"\S+", text[begin:end]))
    first = len(words) - 1
    while first > 0:
        word, before = words[first].group(), words[first - 1].group()
        if first > 1 and before.casefold() in _JOINS:
            first -= 2
        elif _is_number(word) or (_is_letter(word) and (_is_letter(before) or _is_number(before))):
            first -= 1
        else:
            break
    if first < 0 or (first == len(words) - 1 and words[first].group().casefold().strip(".,") in _NO_NAMES):
        return end
    return begin + words[first].start()


def _is_letter(word: str) -> bool:
    return len(word.strip(".,-")) == 1


def _is_number(word: str) -> bool:
    bare = word.strip(".,-").casefold()
    return bare.isdecimal() or bare in NUMBER_WORDS
