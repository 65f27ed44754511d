import pytest

from bridge.transcript.heard import Heard, fresh, place, without_overlap
from bridge.transcript.published import Published
from bridge.whisper.protocol import Segment, Transcription, WordTime


def segment(
    text: str, start: float | None, end: float | None, *, words: bool = True, odd: bool = False
) -> Segment:
    times: list[WordTime] = []
    if words and start is not None and end is not None:
        parts = text.split()
        step = (end - start) / len(parts)
        times = [WordTime(w, start + n * step, start + (n + 1) * step, 0.9) for n, w in enumerate(parts)]
    return Segment(text, start, end, -0.5, tuple(times), odd)


def said(*segments: Segment, text: str | None = None) -> Transcription:
    return Transcription(True, text or " ".join(s.text for s in segments), segments, "en")


def test_times_become_offsets_after_the_sockets_first_sample() -> None:
    heard = place(
        said(segment("one two", 1.0, 2.0)), base=8000, published=Published(), default=(0, 0), limit=10**6
    )
    assert heard is not None
    assert (heard.text, heard.start, heard.end, heard.log_prob) == ("one two", 16_000, 24_000, -0.5)
    assert [(w.word, w.start, w.end) for w in heard.words] == [
        ("one", 16_000, 20_000),
        ("two", 20_000, 24_000),
    ]


def test_words_published_before_are_left_out_by_their_middle() -> None:
    heard = place(
        said(segment("one two three", 0.0, 3.0)),
        base=0,
        published=Published(12_100),
        default=(0, 0),
        limit=10**6,
    )
    assert heard is not None
    assert (heard.text, heard.start) == ("three", 16_000)


def test_nothing_new_is_nothing() -> None:
    again = said(segment("one two", 0.0, 1.0))
    assert place(again, base=0, published=Published(8000), default=(0, 0), limit=10**6) is None
    assert place(said(text=""), base=0, published=Published(), default=(0, 0), limit=10**6) is None


def test_a_segment_without_word_times_is_judged_as_a_whole() -> None:
    early, late = segment("old words", 0.0, 1.0, words=False), segment("new words", 1.0, 2.0, words=False)
    heard = place(said(early, late), base=0, published=Published(8000), default=(0, 0), limit=10**6)
    assert heard is not None
    assert (heard.text, heard.start, heard.end, heard.words) == ("new words", 8000, 16_000, ())


def test_without_any_times_the_default_stands_in() -> None:
    heard = place(
        said(segment("hello there", None, None)),
        base=0,
        published=Published(),
        default=(80, 160),
        limit=10**6,
    )
    assert heard is not None
    assert (heard.text, heard.start, heard.end) == ("hello there", 80, 160)


def test_text_at_the_top_level_alone_is_enough() -> None:
    only = Transcription(True, "just text", (), None)
    heard = place(only, base=0, published=Published(0, "said just"), default=(80, 160), limit=10**6)
    assert heard is not None
    assert heard.text == "just text"


def test_no_time_lies_beyond_what_was_sent() -> None:
    heard = place(said(segment("x", 5.0, 9.0)), base=0, published=Published(), default=(0, 0), limit=48_000)
    assert heard is not None
    assert (heard.start, heard.end) == (40_000, 48_000)


def test_a_hallucination_the_server_suspects_is_labelled() -> None:
    heard = place(
        said(segment("thank you", 0.0, 1.0, odd=True)),
        base=0,
        published=Published(),
        default=(0, 0),
        limit=10**6,
    )
    assert heard is not None
    assert heard.suspect == ("possible_hallucination",)


def placed(*segments: Segment) -> Heard:
    heard = place(said(*segments), base=0, published=Published(), default=(0, 0), limit=10**6)
    assert heard is not None
    return heard


def test_what_was_published_while_a_final_waited_is_cut_from_it() -> None:
    published = Published()
    published.add(placed(segment("one two", 0.0, 2.0)))
    waited = placed(segment("two three", 1.0, 3.0))
    left = fresh(waited, published)
    assert left is not None
    assert (left.text, left.start, left.end, len(left.words)) == ("three", 16_000, 24_000, 1)
    published.add(left)
    assert fresh(waited, published) is None
    later = placed(segment("four five", 4.0, 5.0))
    assert fresh(later, published) is later


def test_a_final_without_words_that_waited_is_new_as_a_whole_or_not_at_all() -> None:
    published = Published()
    waited = placed(segment("one two", 0.0, 2.0, words=False))
    assert fresh(waited, published) is waited
    published.add(waited)
    assert fresh(waited, published) is None


@pytest.mark.parametrize(
    ("before", "text", "left"),
    [
        ("I would like to pay", "like to pay by card", "by card"),
        ("Please call me.", "Call me! Tomorrow", "Tomorrow"),
        ("yes", "yes please", "yes please"),  # one word may be chance
        ("a b c", "a b c", ""),
        ("", "hello", "hello"),
        ("one two", "three four", "three four"),
    ],
)
def test_overlap_of_text(before: str, text: str, left: str) -> None:
    assert without_overlap(before, text) == left


@pytest.mark.parametrize(
    ("segments", "timed"),
    [
        ((segment("one two", 1.0, 2.0),), True),
        ((segment("one two", 1.0, 2.0, words=False),), True),
        ((segment("one two", 1.0, 2.0), segment("three", None, None)), False),
        ((segment("one two", None, None),), False),
        ((), False),
    ],
)
def test_a_place_that_whisper_did_not_give_is_a_guess(segments: tuple[Segment, ...], timed: bool) -> None:
    heard = place(
        said(*segments, text="one two"), base=0, published=Published(), default=(0, 800), limit=10**6
    )
    assert heard is not None
    assert heard.timed is timed
