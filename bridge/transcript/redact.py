"""Numbers and addresses taken out of what was heard, before anybody sees, stores or sends it. Pure.

What is found depends on Whisper's spelling, so a number counts however it is said: in digits, in English words, or
both. It is decided within one final: of a number that is spread over two of them each part is judged alone.
"""

import dataclasses
import importlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, get_args

from bridge.transcript import numbers
from bridge.transcript.digits import runs
from bridge.transcript.email import addresses

if TYPE_CHECKING:
    from bridge.transcript.heard import Heard, HeardWord

Kind = Literal["card", "iban", "ssn", "phone", "email", "digits"]
"""What can be taken out. Where two kinds overlap, the one that stands first here gives its name."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

NEEDS: Final = {"phone": "phonenumbers", "iban": "stdnum"}
"""Kinds that need a module of the extra `redact`."""

LONG_RUN: Final = 6
"""Digits that `digits` takes out: one-time codes have at least six (RFC 4226, section 5.3); years and times have four."""

OPEN_RUN: Final = 4
"""Digits at the end of a partial that may be the beginning of a number: a card's are said in fours."""

LONGEST: Final = 5_000
"""Characters that are looked at. The 30 s of a final hold fewer than 1,000; what is beyond is not shown at all."""

UNCHECKED: Final = "[unchecked]"


def missing(kinds: Collection[str]) -> bool:
    """Whether a kind needs the extra `redact`, and it is not installed. Loads what is needed, once and for all."""
    try:
        for kind in kinds:
            if kind in NEEDS:
                importlib.import_module(NEEDS[kind])
    except ImportError:
        return True
    return False


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    kind: Kind


class Redactor:
    """Takes certain kinds out of what is heard on calls of one number."""

    def __init__(self, kinds: Collection[Kind], number: str = "") -> None:
        """`number` (E.164) is the one that is called: its country is where telephone numbers without a code are."""
        self._kinds = frozenset(kinds)
        self._region = numbers.region_of(number) if "phone" in self._kinds else ""

    def redact(self, heard: "Heard", *, unfinished: bool = False) -> "Heard":
        """What was heard, with `[card]` for a card's number and so on, in the text and in each word of it.

        `unfinished` says that more may follow (it is a partial): digits at its end are `[digits]`. Words that
        cannot be told to belong to something that is taken out or not are left out altogether.
        """
        if not self._kinds:
            return heard
        if len(heard.text) > LONGEST:
            text = heard.text[:LONGEST].rsplit(maxsplit=1)[0]
            return dataclasses.replace(
                heard,
                text=f"{_replaced(text, self._find(text, unfinished=unfinished))} {UNCHECKED}",
                words=(),
            )
        found = self._find(heard.text, unfinished=unfinished)
        places = _places(heard.text, heard.words)
        if places is None:
            joined = " ".join(word.word for word in heard.words)[:LONGEST]
            words = (
                ()
                if found or len(joined) == LONGEST or self._find(joined, unfinished=unfinished)
                else heard.words
            )
        else:
            words = tuple(_hidden(heard.words, places, found))
        return dataclasses.replace(heard, text=_replaced(heard.text, found), words=words)

    def _find(self, text: str, *, unfinished: bool) -> list[_Found]:
        """What is to be taken out, in order, without overlaps."""
        found = [
            _Found(start - (text[start - 1 : start] in {"+", "("}), end, kind)
            for kind, spans in self._spans(text, unfinished=unfinished)
            for start, end in spans
        ]
        merged: list[_Found] = []
        for each in sorted(found, key=lambda one: one.start):
            if merged and each.start < merged[-1].end:
                last = merged.pop()
                kind = min(last.kind, each.kind, key=KINDS.index)
                merged.append(_Found(last.start, max(last.end, each.end), kind))
            else:
                merged.append(each)
        return merged

    def _spans(self, text: str, *, unfinished: bool) -> Iterator[tuple[Kind, Iterable[numbers.Span]]]:
        wanted = self._kinds
        if "iban" in wanted:
            yield "iban", numbers.ibans(text)
        if "email" in wanted:
            yield "email", addresses(text)
        loose = runs(text, loose=True)
        if not loose or wanted == {"email"}:
            return
        if "card" in wanted:
            yield "card", numbers.cards(loose)
        if unfinished:
            yield "digits", numbers.long_runs((run for run in loose if run.last), OPEN_RUN)
        strict = runs(text)
        if "ssn" in wanted:
            yield "ssn", numbers.ssns(text, strict)
        if "phone" in wanted:
            yield "phone", numbers.phones(text, strict, self._region)
        if "digits" in wanted:
            yield "digits", numbers.long_runs(strict, LONG_RUN)


def _replaced(text: str, found: Sequence[_Found]) -> str:
    parts: list[str] = []
    until = 0
    for each in found:
        parts += text[until : each.start], f"[{each.kind}]"
        until = each.end
    return "".join(parts) + text[until:]


def _places(text: str, words: Sequence["HeardWord"]) -> list[tuple[int, int]] | None:
    """Where each word stands in the text, whatever the signs between them; None when the two do not say the same."""
    at = [n for n, c in enumerate(text) if c.isalnum()]
    said = ["".join(filter(str.isalnum, each.word)) for each in words]
    if "".join(said) != "".join(text[n] for n in at):
        return None
    places: list[tuple[int, int]] = []
    first = until = 0
    for word in said:
        if word:
            places.append((at[first], until := at[first + len(word) - 1] + 1))
            first += len(word)
        else:
            places.append((until, until))
    return places


def _hidden(
    words: Sequence["HeardWord"], places: Sequence[tuple[int, int]], found: Sequence[_Found]
) -> Iterator["HeardWord"]:
    """The words; those that lie in what was found have its kind in their place, and their times."""
    at = 0
    for word, (start, end) in zip(words, places, strict=True):
        while at < len(found) and found[at].end <= start:
            at += 1
        covered = at < len(found) and found[at].start < end
        yield dataclasses.replace(word, word=f"[{found[at].kind}]") if covered else word
