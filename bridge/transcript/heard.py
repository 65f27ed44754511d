"""What Whisper said, placed in a track's journal and trimmed of what was published before.

A socket opened after a drop starts a little before the point that is finalised, so its first words may have
been published already; they are told apart by where they lie, not by what they say.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bridge.audio import mulaw
from bridge.whisper.protocol import Segment, Transcription

MIN_OVERLAP_WORDS = 2
"""Without word times, an overlap of fewer equal words than this may be chance."""


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word and its place in the journal, in samples at 8 kHz."""

    word: str
    start: int
    end: int
    probability: float | None


@dataclass(frozen=True, slots=True)
class Heard:
    """A final or partial with its place in the journal, in samples at 8 kHz."""

    text: str
    start: int
    end: int
    words: tuple[HeardWord, ...]
    language: str | None
    log_prob: float | None
    suspect: tuple[str, ...]


def place(
    said: Transcription, *, base: int, published: int, default: tuple[int, int], last_text: str, limit: int
) -> Heard | None:
    """Place what was said on a socket whose audio began at offset `base`; None when nothing new is left.

    Words whose middle lies before `published` are left out, and so is a word across it that is the last word of
    `last_text` again. Where the server gives no times at all, `default` (start, end) stands in for them, and words
    that repeat the end of `last_text` are left out.
    No time lies beyond `limit`, the end of what was sent.
    """
    texts: list[str] = []
    words: list[HeardWord] = []
    spans: list[tuple[int, int]] = []
    untimed = False
    segments = [segment for segment in said.segments if segment.text]
    last_word = _folded(last_text.rsplit(maxsplit=1)[-1]) if last_text else ""
    for segment in segments:
        text, kept, span = _place_segment(segment, base, published, limit, last_word)
        if text:
            texts.append(text)
            words.extend(kept)
            if span is None:
                untimed = True
            else:
                spans.append(span)
    trimmed = texts != [segment.text for segment in segments]
    text = " ".join(texts) if trimmed else said.text
    if not spans and (untimed or not segments):
        spans = [default]
        if last_text:
            text = without_overlap(last_text, text)
    if not text:
        return None
    scores = [s.log_prob for s in segments if s.log_prob is not None]
    return Heard(
        text=text,
        start=min(limit, *(start for start, _ in spans)),
        end=min(limit, max(end for _, end in spans)),
        words=tuple(words),
        language=said.language,
        log_prob=sum(scores) / len(scores) if scores else None,
        suspect=("possible_hallucination",) if any(s.possible_hallucination for s in segments) else (),
    )


def without_overlap(before: str, text: str) -> str:
    """`text` without its first words where they repeat the last words of `before`."""
    old, new = [_folded(w) for w in before.split()], text.split()
    folded = [_folded(w) for w in new]
    for count in range(min(len(old), len(new)), MIN_OVERLAP_WORDS - 1, -1):
        if old[-count:] == folded[:count]:
            return " ".join(new[count:])
    return text


def _place_segment(
    segment: Segment, base: int, published: int, limit: int, last_word: str
) -> tuple[str, list[HeardWord], tuple[int, int] | None]:
    words = list(_place_words(segment, base, limit))
    kept = [word for word in words if (word.start + word.end) // 2 >= published]
    if kept and kept[0].start < published and _folded(kept[0].word) == last_word:
        del kept[0]
    if words and not kept:
        return "", [], None
    every_word_has_its_time = len(words) >= len(segment.text.split())
    if words and (every_word_has_its_time or len(kept) == len(words)):
        text = segment.text if len(kept) == len(words) else " ".join(word.word for word in kept)
        return text, kept, (min(word.start for word in kept), max(word.end for word in kept))
    if segment.start_s is None or segment.end_s is None:
        return segment.text, [], None
    start, end = base + _samples(segment.start_s), base + _samples(segment.end_s)
    if (start + end) // 2 < published:
        return "", [], None
    return segment.text, [], (max(start, published), end)


def _place_words(segment: Segment, base: int, limit: int) -> Iterator[HeardWord]:
    for word in segment.words:
        start, end = (min(limit, base + _samples(seconds)) for seconds in (word.start_s, word.end_s))
        yield HeardWord(word.word, start, end, word.probability)


def _samples(seconds: float) -> int:
    return round(seconds * mulaw.SAMPLE_RATE)


def _folded(word: str) -> str:
    return "".join(c for c in word.casefold() if c.isalnum())
