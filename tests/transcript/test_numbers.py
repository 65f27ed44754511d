from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.transcript import numbers
from bridge.transcript.digits import runs

CARDS = {  # the test numbers of payment processors
    "visa": "4242424242424242",
    "visa of 13": "4222222222222",
    "visa of 19": "4000000000000000006",
    "mastercard": "5555555555554444",
    "mastercard, series 2": "2223003122003222",
    "american express": "378282246310005",
    "diners": "30569309025904",
    "discover": "6011111111111117",
    "unionpay": "6200000000000005",
}


def cut(text: str, find: Callable[[str], Iterable[numbers.Span]]) -> list[str]:
    return [text[start:end] for start, end in find(text)]


def cards(text: str) -> Iterable[numbers.Span]:
    return numbers.cards(runs(text, loose=True))


def ssns(text: str) -> Iterable[numbers.Span]:
    return numbers.ssns(text, runs(text))


def phones(text: str, region: str = "US") -> Iterable[numbers.Span]:
    return numbers.phones(text, runs(text), region)


@pytest.mark.parametrize("number", CARDS.values(), ids=CARDS)
def test_cards(number: str) -> None:
    assert cut(f"It is {number}, yes", cards) == [number]
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert cut(f"It is {wrong}, yes", cards) == []


@pytest.mark.parametrize(
    "said",
    [
        "4242 4242 4242 4242",
        "4242-4242-4242-4242",
        "4 2 4 2, 4 2 4 2, 4 2 4 2, 4 2 4 2",
        "four two four two four two four two four two four two four two four two",
        "Four two four two, four two four two, four two four two, four two four two",
        "forty-two forty-two forty-two forty-two forty two forty two forty two forty two",
        "4242 four two four two 4242 four two 42",
        "4242, uh, 4242, and then 4242 and 4242",
    ],
)
def test_one_card_however_it_is_said(said: str) -> None:
    assert cut(f"My card is {said}.", cards) == [said]
    assert cut(f"{said} expires in May", cards) == [said]


def test_double_and_oh() -> None:
    assert cut("five triple five double five, 5 5 quadruple five 4444", cards) == [
        "five triple five double five, 5 5 quadruple five 4444"
    ]
    assert cut("four oh oh oh oh oh oh oh oh oh oh oh oh oh oh oh oh oh six", cards) != []


def test_what_is_said_with_the_card_goes_with_it() -> None:
    said = "4242 4242 4242 4242 12/27 123"
    assert cut(f"pay with {said} please", cards) == [said]


def test_long_numbers_that_are_no_cards() -> None:
    for text in ("1234567890123", "0000000000000000", "94242424242424242", "4242 4242 4242", "no digits"):
        assert cut(text, cards) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("My social is 123-45-6789.", ["123-45-6789"]),
        ("123 45 6789", ["123 45 6789"]),
        (
            "one two three, four five, six seven eight nine",
            ["one two three, four five, six seven eight nine"],
        ),
        ("the last one, 123-45-6789", ["123-45-6789"]),
        ("000-12-3456", []),
        ("666-12-3456", []),
        ("123-00-4567", []),
        ("123-45-0000", []),
        ("123-45-678", []),
        ("123-45-67890", []),
    ],
)
def test_social_security_numbers(text: str, found: list[str]) -> None:
    assert cut(text, ssns) == found


@pytest.mark.parametrize(
    ("text", "region", "found"),
    [
        ("call 555-123-4567 now", "US", ["555-123-4567"]),
        ("call (202) 555-0123 now", "US", ["202) 555-0123"]),
        ("1-800-555-0199", "US", ["1-800-555-0199"]),
        ("five five five, one two three four", "US", ["five five five, one two three four"]),
        (
            "one eight hundred five five five oh one nine nine",
            "US",
            ["one eight hundred five five five oh one nine nine"],
        ),
        ("for two 202 555 0123", "US", ["202 555 0123"]),
        ("202 555 0123, 202 555 0124.", "US", ["202 555 0123", "202 555 0124"]),
        ("555 1234, 555 6789", "US", ["555 1234", "555 6789"]),
        ("+44 20 7946 0958", "US", ["44 20 7946 0958"]),
        (
            "plus forty-four twenty seven nine four six oh nine five eight",
            "US",
            ["forty-four twenty seven nine four six oh nine five eight"],
        ),
        ("44 20 7946 0958", "US", ["44 20 7946 0958"]),  # the plus is often left out
        ("020 7946 0958", "GB", ["020 7946 0958"]),
        ("030 123456", "DE", ["030 123456"]),
        ("+999 12345", "US", []),  # no country has this code
        ("+999 1234567", "US", ["1234567"]),
        ("12/25/2024 at 10:30", "US", []),
        ("2019, 2020", "US", []),
        ("4242 4242 4242 4242", "US", []),
    ],
)
def test_telephone_numbers(text: str, region: str, found: list[str]) -> None:
    assert cut(text, lambda said: phones(said, region)) == found


@pytest.mark.parametrize(
    ("number", "region"),
    [
        ("+15551234567", "US"),
        ("+442079460958", "GB"),
        ("+4930123456", "DE"),
        ("sip:me@example.com", "US"),
        ("", "US"),
        ("+1", "US"),
    ],
)
def test_the_country_of_a_number(number: str, region: str) -> None:
    assert numbers.region_of(number) == region


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("IBAN DE89 3704 0044 0532 0130 00 ok", ["DE89 3704 0044 0532 0130 00"]),
        ("it's GB29NWBK60161331926819.", ["GB29NWBK60161331926819"]),
        ("de89370400440532013000", ["de89370400440532013000"]),
        ("NO93 8601 1117 947", ["NO93 8601 1117 947"]),
        (
            "D E eight nine three seven zero four zero zero four four zero five three two zero one three zero zero zero",
            [
                "D E eight nine three seven zero four zero zero four four zero five three two zero one three zero zero zero"
            ],
        ),
        ("DE89 3704 0044 0532 0130 01", []),  # its check digits say no
        ("DE89", []),
        ("I am AT12 noon", []),
    ],
)
def test_bank_accounts(text: str, found: list[str]) -> None:
    assert cut(text, numbers.ibans) == found


def test_long_runs() -> None:
    text = "code 12 34 56, not 12345"
    assert cut(text, lambda said: numbers.long_runs(runs(said), 6)) == ["12 34 56"]


def test_what_comes_after_very_many_numbers_is_taken_for_one() -> None:
    many = numbers.MOST_CHECKS + 1
    assert len(cut("+99912345678; " * many, phones)) == 1
    assert len(cut("DE89 3704 0044 0532 0130 01! " * many, numbers.ibans)) == 1


def luhn(digits: str) -> bool:
    """The textbook's way, digit by digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


@given(st.text("0123456789", min_size=13, max_size=24))
def test_among_single_digits_every_number_is_checked(digits: str) -> None:
    windows = (
        digits[start : start + length]
        for length in numbers.CARD_LENGTHS
        for start in range(len(digits) - length + 1)
    )
    expected = any(window[0] in numbers.CARD_FIRST and luhn(window) for window in windows)
    spelled = " ".join(digits)
    assert (cut(spelled, cards) == [spelled]) is expected


@given(st.text("0123456789", min_size=13, max_size=24))
def test_what_is_written_in_one_piece_is_one_number(digits: str) -> None:
    expected = len(digits) in numbers.CARD_LENGTHS and digits[0] in numbers.CARD_FIRST and luhn(digits)
    assert (cut(digits, cards) == [digits]) is expected
