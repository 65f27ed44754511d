"""What Whisper said, placed in a track's journal and trimmed of what was published before.

A socket opened after a drop starts a little before the point that is finalised, so its first words may have
been published already; they are told apart by where they lie, not by what they say.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bridge.audio import mulaw
from bridge.transcript.published import Published, folded
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
    timed: bool = True
    """Whisper said where it lies; else that is a guess."""


def place(
    said: Transcription, *, base: int, published: Published, default: tuple[int, int], limit: int
) -> Heard | None:
    """Place what was said on a socket whose audio began at offset `base`; None when nothing new is left.

    Words that were published before are left out, and so is a word across the point before which all is, if it is
    the last word of the latest final again. Only where a server gives no word times the text has to tell: words that
    repeat the end of the latest final are left out. Without any times `default` (start, end) stands in for them.
    No time lies beyond `limit`, the end of what was sent.
    """
    texts: list[str] = []
    words: list[HeardWord] = []
    spans: list[tuple[int, int]] = []
    untimed = False
    segments = [segment for segment in said.segments if segment.text]
    for segment in segments:
        text, kept, span = _place_segment(segment, base, published, limit)
        if text:
            texts.append(text)
            words.extend(kept)
            if span is None:
                untimed = True
            else:
                spans.append(span)
    trimmed = texts != [segment.text for segment in segments]
    text = " ".join(texts) if trimmed else said.text
    timed = bool(spans) and not untimed
    if not spans and (untimed or not segments):
        spans = [default]
        text = without_overlap(published.last_text, text)
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
        timed=timed,
    )


def fresh(heard: Heard, published: Published) -> Heard | None:
    """A final that has waited, without the words that were published meanwhile; None when nothing new is left."""
    if not heard.words:
        return None if published.has(heard.start, heard.end) else heard
    words = tuple(word for word in heard.words if not published.has(word.start, word.end, word.word))
    if not words:
        return None
    if len(words) == len(heard.words) or len(heard.words) < len(heard.text.split()):
        return heard
    text = " ".join(word.word for word in words)
    return replace(heard, text=text, start=words[0].start, end=words[-1].end, words=words)


def without_overlap(before: str, text: str) -> str:
    """`text` without its first words where they repeat the last words of `before`."""
    old, new = [folded(w) for w in before.split()], text.split()
    first = [folded(w) for w in new]
    for count in range(min(len(old), len(new)), MIN_OVERLAP_WORDS - 1, -1):
        if old[-count:] == first[:count]:
            return " ".join(new[count:])
    return text


def _place_segment(
    segment: Segment, base: int, published: Published, limit: int
) -> tuple[str, list[HeardWord], tuple[int, int] | None]:
    words = list(_place_words(segment, base, limit))
    kept = [word for word in words if not published.has(word.start, word.end, word.word)]
    if kept and kept[0].start < published.before and published.ends_with(kept[0].word):
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
    if published.has(start, end):
        return "", [], None
    text = segment.text
    if start < published.before:
        text = without_overlap(published.last_text, text)
    return text, [], (max(start, published.before), end)


def _place_words(segment: Segment, base: int, limit: int) -> Iterator[HeardWord]:
    for word in segment.words:
        start, end = (min(limit, base + _samples(seconds)) for seconds in (word.start_s, word.end_s))
        yield HeardWord(word.word, start, end, word.probability)


def _samples(seconds: float) -> int:
    return round(seconds * mulaw.SAMPLE_RATE)
