from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.transcript.digits import runs, written


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("4242 4242-4242, 4242.", ["4242424242424242"]),
        ("four two four two", ["4242"]),
        ("4242 four two double oh", ["42424200"]),
        ("triple eight, treble 5, quadruple nine", ["8885559999"]),
        ("forty-two forty two forty", ["424240"]),
        ("nineteen eighty-four", ["1984"]),
        ("one eight hundred five five five", ["1800555"]),
        ("forty-two hundred", ["4200"]),
        ("4242, uh, 4242 um 4242", ["424242424242"]),
        ("O-five, oh seven, niner", ["05079"]),
        ("(202) 555\u20130123", ["2025550123"]),
        ("\u0664\u0662\u0664\u0662 four", ["42424"]),  # Arabic-Indic digits
        ("Oh, four people", ["4"]),
        ("Double room for two", ["2"]),
        ("the 4th at 5pm on the B12, mp3", []),
        ("from ten to twelve", ["10", "12"]),
        ("4242 you know well then 4242", ["4242", "4242"]),
        ("4242 um uh um uh 4242", ["4242", "4242"]),  # that is talk
        ("", []),
    ],
)
def test_digits_as_they_are_said(text: str, digits: list[str]) -> None:
    assert [run.digits for run in runs(text)] == digits


def test_what_joins_numbers_only_loosely() -> None:
    text = "4242 and 4242 then 12/27"
    assert [run.digits for run in runs(text)] == ["4242", "4242", "12", "27"]
    assert [run.digits for run in runs(text, loose=True)] == ["424242421227"]


def test_where_a_run_lies() -> None:
    text = "it is double four, 42."
    (run,) = runs(text)
    assert text[run.start : run.end] == "double four, 42"
    assert [text[item.start : item.end] for item in run.items] == ["double four", "42"]


def test_a_plus_begins_an_international_number() -> None:
    first, second = runs("555 0100, +44 20 7946 0000")
    assert not first.international
    assert (second.digits, second.international) == ("442079460000", True)
    (spoken,) = runs("plus forty-four twenty")
    assert spoken.international
    assert [run.international for run in runs("one plus one")] == [False, True]


def test_a_run_at_the_end_may_go_on() -> None:
    assert [run.last for run in runs("12 people said 4242, um")] == [False, True]
    assert [run.last for run in runs("4242 is it")] == [False]


def test_written() -> None:
    assert written("0042") == "0042"
    assert written("\u0660\uff14\u0662") == "042"


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    for loose in (False, True):
        last = 0
        for run in runs(text, loose=loose):
            assert run.digits.isascii()
            assert run.digits.isdecimal()
            assert last <= run.start < run.end <= len(text)
            last = run.end


WORDS = "zero one two three four five six seven eight nine".split()  # noqa: SIM905 - as it is said


@given(st.text("0123456789", min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_digits_are_the_same_however_they_are_said(digits: str, random: Random) -> None:
    said = " ".join(random.choice((digit, WORDS[int(digit)])) for digit in digits)
    assert "".join(run.digits for run in runs(said)) == digits
