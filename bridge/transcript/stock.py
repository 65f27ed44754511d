"""Phrases that Whisper writes over silence, because subtitles end with them.

Collected from what users of Whisper report (among others in the discussions 679 and 928 of openai/whisper). What
people also say on the telephone ("Thank you.", "Bye.", "Okay.") is not among them.
"""

import re
from pathlib import Path
from typing import Final

_PHRASES: Final = Path(__file__).with_name("stock.txt").read_text(encoding="utf-8")

_CREDITS: Final = re.compile(
    r"untertitel(ung)?( im auftrag)? des zdf( für funk)? ?\d*|untertitel im auftrag des zdf( für funk)? \d+"
    r"|(copyright )?(wdr|swr|ndr|br|mbc 뉴스|ytn) ?\d*|copyright australian broadcasting corporation"
    r"|(subtitles|captions|transcription|translation) by [\w ]{1,40}|sous titrage [\w ]{1,30}"
)

_SENTENCE_ENDS: Final = re.compile(r"[.!?\u2026\u0964]+(?:\s|\Z)|[\u3002\uff01\uff1f]")
_SIGNS: Final = re.compile(r"[^\w]+")
_DROPPED: Final = re.compile(
    r"['\u2019\u0307]"
)  # apostrophes, and the dot that a Turkish capital I leaves behind


def _folded(text: str) -> str:
    """Small letters, one space where there was anything else."""
    return " ".join(_SIGNS.sub(" ", _DROPPED.sub("", text.casefold())).split())


_KNOWN: Final = frozenset(_folded(line) for line in _PHRASES.splitlines()) - {""}


def is_stock_phrase(text: str) -> bool:
    """Whether a text is nothing but such phrases. Without the audio that says little: somebody may mean it."""
    if (whole := _folded(text)) in _KNOWN:
        return True
    sentences = (
        [whole] if _CREDITS.fullmatch(whole) else [_folded(part) for part in _SENTENCE_ENDS.split(text)]
    )
    said = [sentence for sentence in sentences if sentence]
    return bool(said) and all(each in _KNOWN or _CREDITS.fullmatch(each) for each in said)
