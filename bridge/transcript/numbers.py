"""Which runs of digits are card, social security, telephone and bank account numbers. Pure.

Telephone numbers and IBANs need the extra `redact`: phonenumbers knows the lengths of every country's numbers, and
python-stdnum those of its IBANs. (presidio-analyzer was weighed too: it brings spaCy and 30 packages more, wants a
model that is downloaded separately, and reads no digits that are spoken as words.)
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Final

from bridge.transcript.digits import NUMBER_WORDS, Item, Run, tokens, written

CARD_LENGTHS: Final = range(13, 20)
"""Digits of a payment card: ISO/IEC 7812 allows up to 19, and the shortest in use have 13."""

CARD_FIRST: Final = frozenset("23456")
"""What a payment card's number begins with; the rest of ISO/IEC 7812 is for airlines, fuel and states."""

PHONE_LENGTHS: Final = range(7, 16)
"""Digits of a telephone number: a local one has 7, and E.164 allows 15."""

INTERNATIONAL: Final = 10
"""A number of at least so many digits may have its country's code without saying plus."""

_SSN: Final = re.compile(r"(?!000|666)\d{3}(?!00)\d{2}(?!0000)\d{4}")  # what the authorities never hand out

IBAN_LENGTHS: Final = range(15, 35)
"""Characters of an IBAN: Norway's have 15, ISO 13616 allows 34."""

MOST_CHECKS: Final = 200
"""Numbers looked at in one text; what comes after them is taken for one. No speech of 30 s has so many."""

Span = tuple[int, int]

_IBAN_START: Final = re.compile(r"[A-Z]{2}\d{2}")


def cards(loose: Iterable[Run]) -> Iterator[Span]:
    """Runs of digits that hold a card number (Luhn), whole: its expiry and code are said in the same breath."""
    return ((run.start, run.end) for run in loose if _holds_card(run))


def long_runs(runs: Iterable[Run], least: int) -> Iterator[Span]:
    """Runs of at least `least` digits."""
    return ((run.start, run.end) for run in runs if len(run.digits) >= least)


def ssns(text: str, runs: Iterable[Run]) -> Iterator[Span]:
    """Social security numbers of the United States, and the tax numbers that look like them."""
    return _first_reading(text, runs, lambda digits, _: bool(_SSN.fullmatch(digits)))


def phones(text: str, runs: Iterable[Run], region: str) -> Iterator[Span]:
    """Telephone numbers of a possible length, in `region` (ISO 3166: "US") or with a country's code."""
    checks = 0

    def is_phone(digits: str, international: bool) -> bool:  # noqa: FBT001 - the one form of a check
        nonlocal checks
        if len(digits) not in PHONE_LENGTHS:
            return False
        checks += 1
        return checks > MOST_CHECKS or _possible(digits, region, international=international)

    return _first_reading(text, runs, is_phone)


def region_of(number: str) -> str:
    """The country that a telephone number (E.164) is in; "US" for what is none, such as a sip: URI."""
    import phonenumbers  # noqa: PLC0415 - an extra

    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or "US"
    except phonenumbers.NumberParseException:
        return "US"


def ibans(text: str) -> Iterator[Span]:
    """Bank account numbers, written or spelled letter by letter."""
    from stdnum import iban  # noqa: PLC0415 - an extra

    checks = 0
    for letters, places in _spelled(text):
        until = 0
        for match in _IBAN_START.finditer(letters):
            if match.start() < until:
                continue
            checks += 1
            for length in IBAN_LENGTHS:
                candidate = letters[match.start() : match.start() + length]
                if len(candidate) < length:
                    break
                if checks > MOST_CHECKS or iban.is_valid(candidate):
                    until = match.start() + length
                    yield places[match.start()][0], places[until - 1][1]
                    break


def _holds_card(run: Run) -> bool:
    """Whether groups of a run together could be a card's number.

    Sums from the start make each try one subtraction. A number that is written in one piece is taken as a whole:
    of its many parts, one would pass by chance.
    """
    digits = run.digits
    if len(digits) < CARD_LENGTHS[0]:
        return False
    once = [int(c) for c in digits]
    twice = [2 * value - 9 * (value > 4) for value in once]
    mixed = [
        list(accumulate((twice[n] if n % 2 == odd else once[n] for n in range(len(once))), initial=0))
        for odd in (0, 1)
    ]  # mixed[odd][n]: the sum of the first n digits, those at odd (or else even) places counted twice
    edges = list(accumulate((len(item.digits) for item in run.items), initial=0))
    for first, start in enumerate(edges):
        if digits[start : start + 1] not in CARD_FIRST:
            continue
        for end in edges[first + 1 : first + 1 + CARD_LENGTHS[-1]]:
            sums = mixed[end % 2]  # the last digit counts once, the one before it twice
            if end - start in CARD_LENGTHS and (sums[end] - sums[start]) % 10 == 0:
                return True
    return False


def _first_reading(text: str, runs: Iterable[Run], check: Callable[[str, bool], bool]) -> Iterator[Span]:
    """What `check` (of digits, and whether a plus stands before them) takes for numbers, each run read in one way."""
    for run in runs:
        for parts in _readings(run, text):
            found = [
                (part[0].start, part[-1].end)
                for part in parts
                if check("".join(item.digits for item in part), run.international and part[0] is run.items[0])
            ]
            if found:
                yield from found
                break


def _readings(run: Run, text: str) -> Iterator[list[Sequence[Item]]]:
    """A run as one number; as those that punctuation sets apart; as one with a word before or after it."""
    items = run.items
    if len(run.digits) < PHONE_LENGTHS[0]:
        return
    yield [items]
    if len(items) > 1:
        pieces: list[list[Item]] = [[items[0]]]
        for before, item in pairwise(items):
            if any(c in ",.;" for c in text[before.end : item.start]):
                pieces.append([])
            pieces[-1].append(item)
        yield [*pieces]
        yield [items[1:]]
        yield [items[:-1]]


def _possible(digits: str, region: str, *, international: bool) -> bool:
    import phonenumbers  # noqa: PLC0415 - an extra

    forms: list[tuple[str, str | None]] = [] if international else [(digits, region)]
    if international or len(digits) >= INTERNATIONAL:
        forms.append(("+" + digits, None))
    for form, country in forms:
        try:
            if phonenumbers.is_possible_number(phonenumbers.parse(form, country)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def _spelled(text: str) -> Iterator[tuple[str, list[Span]]]:
    """Stretches of single letters, capitals and digits, with the place in `text` of each character."""
    letters: list[str] = []
    places: list[Span] = []
    end = 0
    for token in tokens(text):
        word, gap = token.group(), text[end : token.start()]
        folded = word.casefold()
        if word[0].isdecimal():
            characters = written(word)
        elif folded in NUMBER_WORDS and len(word) > 1:
            characters = NUMBER_WORDS[folded]
        elif word.isascii() and (
            len(word) == 1 or word.isupper() or text[token.end() : token.end() + 1].isdecimal()
        ):
            characters = word.upper()
        else:
            characters = ""
        if letters and (not characters or len(gap) > 2):
            yield "".join(letters), places
            letters, places = [], []
        letters.extend(characters)
        places.extend([token.span()] * len(characters))
        end = token.end()
    if letters:
        yield "".join(letters), places
