import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.transcript import redact
from bridge.transcript.heard import Heard, HeardWord
from bridge.transcript.redact import KINDS, LONGEST, Kind, Redactor, missing

ALL = Redactor(KINDS, "+15551234567")

ORDINARY = (Path(__file__).parent / "sentences" / "ordinary.txt").read_text(encoding="utf-8").splitlines()


def heard(text: str, words: list[str] | None = None) -> Heard:
    said = text.split() if words is None else words
    placed = tuple(HeardWord(word, n * 100, n * 100 + 90, 0.9) for n, word in enumerate(said))
    return Heard(text, 0, 80_000, placed, "en", -0.2, ())


def said_by(redacted: Heard) -> list[str]:
    return [word.word for word in redacted.words]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("My card is 4242 4242 4242 4242, okay?", "My card is [card], okay?"),
        ("four two four two " * 4, "[card] "),
        ("Call (202) 555-0123 or +44 20 7946 0958.", "Call [phone] or [phone]."),
        ("Write to ann dot lee at example dot com or a@b.org.", "Write to [email] or [email]."),
        ("It's 123-45-6789.", "It's [ssn]."),
        ("DE89 3704 0044 0532 0130 00", "[iban]"),
        ("The code is one two three four five six.", "The code is [digits]."),
        ("Nothing here.", "Nothing here."),
        ("", ""),
    ],
)
def test_what_is_taken_out(text: str, shown: str) -> None:
    assert ALL.redact(heard(text)).text == shown


def test_ordinary_sentences_stay_as_they_are() -> None:
    changed = {text: found for text in ORDINARY if (found := ALL.redact(heard(text)).text) != text}
    assert not changed


def test_only_what_is_asked_for() -> None:
    text = "4242 4242 4242 4242 and a@b.org"
    assert Redactor([]).redact(heard(text)) == heard(text)
    assert Redactor(["card"]).redact(heard(text)).text == "[card] and a@b.org"
    assert Redactor(["email"]).redact(heard(text)).text == "4242 4242 4242 4242 and [email]"
    assert Redactor(["digits"]).redact(heard(text)).text == "[digits] and [email]".replace(
        "[email]", "a@b.org"
    )


def test_words_are_hidden_with_their_text_and_keep_their_times() -> None:
    before = heard("My card is 4242 4242 4242 4242, okay?")
    after = ALL.redact(before)
    assert said_by(after) == ["My", "card", "is", "[card]", "[card]", "[card]", "[card]", "okay?"]
    times = [(word.start, word.end, word.probability) for word in before.words]
    assert [(word.start, word.end, word.probability) for word in after.words] == times


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["Pay", "4242", "4242", "4242", "4242"], ["Pay", "[card]", "[card]", "[card]", "[card]"]),
        (["Pay,", "4242424242424242."], ["Pay,", "[card]"]),
        (["Pay", "4242", "-", "424242424242", "!"], ["Pay", "[card]", "[card]", "[card]", "!"]),
        (["Pay", "4242", "4242", "4242"], []),  # not the same words: nobody knows which are which
        (["Pay", "four", "two"], []),
        ([], []),
    ],
)
def test_words_that_are_cut_otherwise_than_the_text(words: list[str], shown: list[str]) -> None:
    assert said_by(ALL.redact(heard("Pay 4242-4242-4242-4242.", words))) == shown


def test_words_that_say_more_than_the_text() -> None:
    assert said_by(ALL.redact(heard("Hello.", ["Hello.", "Bye."]))) == ["Hello.", "Bye."]
    assert said_by(ALL.redact(heard("Hello.", ["Hello.", "4242424242424242"]))) == []


@pytest.mark.parametrize(
    ("text", "partial"),
    [
        ("My card is 4242 42", "My card is [digits]"),
        ("My card is four two four two", "My card is [digits]"),
        ("My card is 4242 4242 uh,", "My card is [digits] uh,"),
        ("My card is 4242 4242 4242 4242", "My card is [card]"),
        ("I have 2", "I have 2"),
        ("4242 is it", "4242 is it"),
        ("mail me, ann@", "mail me, [email]"),
    ],
)
def test_a_partial_does_not_show_the_beginning_of_a_number(text: str, partial: str) -> None:
    assert ALL.redact(heard(text), unfinished=True).text == partial


def test_a_partial_of_who_wants_only_addresses_hidden() -> None:
    assert Redactor(["email"]).redact(heard("It is 4242"), unfinished=True).text == "It is 4242"


def test_a_text_too_long_to_be_checked_is_not_shown() -> None:
    text = "word " * LONGEST + "4242 4242 4242 4242"
    shown = ALL.redact(heard(text))
    assert len(shown.text) < LONGEST + 20
    assert shown.text.endswith("word [unchecked]")
    assert shown.words == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "piece",
    ["4242 ", "a@", "DE89 ", "a at b.co ", "5551234567. ", "forty two ", "12345678, ", "a dot ", "-", "x"],
)
def test_a_hostile_text_of_a_megabyte_takes_no_time(kind: Kind, piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    redactor = Redactor([kind], "+15551234567")
    began = time.process_time()
    redactor.redact(heard(text, []))
    assert time.process_time() - began < 1.0  # measured: 0.07 s at most


def test_kinds_that_need_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not missing(KINDS)
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    assert missing(["card", "phone"])
    assert not missing(["card", "email", "ssn", "digits", "iban"])
    monkeypatch.setitem(sys.modules, "stdnum", None)
    assert missing(["iban"])


PIECES = st.sampled_from(
    [
        "four",
        "two",
        "4242",
        "oh",
        "double",
        "my",
        "card",
        "is",
        "uh",
        "and",
        "@",
        "at",
        "dot",
        "gmail.com",
        "+1",
        "DE89",
        ",",
        "hundred",
    ]
)


@given(st.text() | st.lists(PIECES, max_size=40).map(" ".join), st.booleans())
def test_anything_can_be_redacted(text: str, unfinished: bool) -> None:
    once = ALL.redact(heard(text), unfinished=unfinished)
    assert once == ALL.redact(heard(text), unfinished=unfinished)
    assert len(once.words) in {0, len(text.split())}


@given(
    st.lists(st.sampled_from(["4242", "four two", "42", "forty-two"]), min_size=3, max_size=3),
    st.sampled_from([" ", ", ", " uh ", "-", " and "]),
)
def test_no_digit_of_a_card_is_left(groups: list[str], between: str) -> None:
    digits = sum(4 if group == "4242" else 2 for group in groups)
    said = between.join([*groups, *["42"] * ((16 - digits) // 2)])
    shown = ALL.redact(heard(f"It is {said}. Thanks"))
    assert shown.text == "It is [card]. Thanks"
    assert not {"4242", "42", "four", "two", "forty-two"} & set(said_by(shown))


def test_the_kinds_are_told_in_one_place() -> None:
    assert set(redact.NEEDS) <= set(KINDS)
