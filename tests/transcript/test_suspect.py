"""What is doubted, and above all what is not: every sentence in `sentences/` was meant."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.transcript.heard import Heard
from bridge.transcript.suspect import LONGEST, REASONS, reasons
from bridge.whisper.watermark import LOUD_PEAK

SENTENCES = [
    line
    for path in sorted((Path(__file__).parent / "sentences").glob("*.txt"))
    for line in path.read_text(encoding="utf-8").splitlines()
]

SPEECH = 8000  # a peak of ordinary speech
SOFT = 700  # of a voice that is hardly there
SILENT = 90


def heard(text: str, seconds: float = 3.0, log_prob: float | None = -0.3) -> Heard:
    return Heard(text, 8000, 8000 + round(seconds * 8000), (), "en", log_prob, ())


def test_there_are_enough_sentences() -> None:
    assert len(SENTENCES) > 300


@pytest.mark.parametrize("peak", [SPEECH, SOFT, None])
def test_what_people_say_is_not_doubted(peak: int | None) -> None:
    doubted = {
        text: found
        for text in SENTENCES
        if (found := reasons(heard(text, len(text) / 25, log_prob=-0.9), peak))  # 25 characters/s: hurried
    }
    assert not doubted


@pytest.mark.parametrize(
    ("peak", "label"),
    [(SILENT, True), (LOUD_PEAK, True), (LOUD_PEAK + 1, False), (SOFT, False), (None, False)],
)
def test_words_over_silence(peak: int | None, label: bool) -> None:
    assert ("silent_audio" in reasons(heard("Thank you."), peak)) is label


def test_without_times_silence_says_nothing() -> None:
    guessed = replace(heard("Thanks for watching!", 0.1), timed=False)
    assert reasons(guessed, SILENT) == ()
    assert reasons(replace(guessed, text="a real sentence that took its time to be said"), SILENT) == ()


STOCK = [
    "Thank you for watching!",
    "Thanks for watching. Please subscribe!",
    "Subtitles by the Amara.org community",
    "Untertitelung des ZDF f\u00fcr funk, 2017",
    "Untertitel im Auftrag des ZDF, 2020",
    "Sous-titres r\u00e9alis\u00e9s par la communaut\u00e9 d'Amara.org",
    "Sous-titrage Soci\u00e9t\u00e9 Radio-Canada",
    "\u00a1Gracias por ver el video!",
    "Sottotitoli creati dalla comunit\u00e0 Amara.org",
    "\u0130zledi\u011finiz i\u00e7in te\u015fekk\u00fcr ederim.",
    "\u0421\u0443\u0431\u0442\u0438\u0442\u0440\u044b \u0441\u0434\u0435\u043b\u0430\u043b DimaTorzok",
    "\u3054\u8996\u8074\u3042\u308a\u304c\u3068\u3046\u3054\u3056\u3044\u307e\u3057\u305f\u3002",
    "\uc2dc\uccad\ud574\uc8fc\uc154\uc11c \uac10\uc0ac\ud569\ub2c8\ub2e4!",
    "\u8c22\u8c22\u5927\u5bb6\u89c2\u770b\uff01",
]


@pytest.mark.parametrize("text", STOCK)
def test_the_end_of_a_video_over_a_short_and_quiet_stretch(text: str) -> None:
    assert reasons(heard(text, 1.5), SOFT) == ("stock_phrase",)
    assert reasons(heard(text, 1.5), SILENT) == ("silent_audio", "stock_phrase")
    assert reasons(heard(text, 1.5), SPEECH) == ()  # somebody reads it out
    assert reasons(heard(text, 4.0), SOFT) == ()


@pytest.mark.parametrize(
    "text",
    [
        "I'm going to go to the store. " * 4,
        "no " * 20,
        "thank you " * 10,
        "ha" * 80,
        "\u3042\u308a\u304c\u3068\u3046" * 12,
        "and then we went to the shop and " * 5,
    ],
)
def test_a_loop(text: str) -> None:
    assert reasons(heard(text.strip(), len(text) / 10), SPEECH) == ("repetition",)


@pytest.mark.parametrize(
    ("text", "seconds", "label"),
    [
        ("a" * 80, 1.0, False),
        ("a" * 81, 1.0, True),
        ("The quick brown fox jumps over the lazy dog.", 0.0, True),
        ("Yes.", 0.0, False),
        ("word " * 240, 29.0, False),
    ],
)
def test_more_than_can_be_said(text: str, seconds: float, label: bool) -> None:
    assert ("too_fast" in reasons(heard(text, seconds), SPEECH)) is label


@pytest.mark.parametrize(("log_prob", "label"), [(-1.01, True), (-1.0, False), (0.0, False), (None, False)])
def test_whispers_own_probability(log_prob: float | None, label: bool) -> None:
    assert (reasons(heard("Yes.", log_prob=log_prob), SPEECH) == ("low_probability",)) is label


def test_the_servers_own_doubt_stays() -> None:
    odd = replace(heard("Yes.", log_prob=-2.0), suspect=("possible_hallucination",))
    assert reasons(odd, SPEECH) == ("possible_hallucination", "low_probability")


@given(
    st.text(),
    st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    st.none() | st.floats(),
    st.none() | st.integers(0, 32768),
    st.booleans(),
)
def test_anything_can_be_looked_at(
    text: str, span: tuple[int, int], log_prob: float | None, peak: int | None, timed: bool
) -> None:
    found = reasons(Heard(text, *span, (), None, log_prob, (), timed), peak)
    assert [reason for reason in REASONS if reason in found] == list(found)


@pytest.mark.parametrize("text", ["a b " * 250_000, "x" * 10**6, "\ud800 " * 5, "1 " * 500_000])
def test_a_text_of_any_length_is_looked_at_in_part(text: str) -> None:
    found = reasons(heard(text, 30.0), SPEECH)
    assert reasons(heard(text[:LONGEST], 30.0), SPEECH) == found
