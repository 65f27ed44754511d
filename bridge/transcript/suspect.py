"""Reasons to doubt a final. Pure: a final is labelled, never changed.

Whisper was trained on subtitles: over silence and noise it writes what subtitles say there, and it can fall into a
loop. Each reason is so strict that an ordinary sentence does not meet it, since whoever reads the label may drop
the text.
"""

import zlib
from typing import TYPE_CHECKING, Final, Literal, get_args

from bridge.audio import mulaw
from bridge.transcript.digits import NUMBER_WORDS, tokens
from bridge.transcript.stock import is_stock_phrase
from bridge.whisper.watermark import LOUD_PEAK

if TYPE_CHECKING:
    from bridge.transcript.heard import Heard

Reason = Literal[
    "possible_hallucination",
    "silent_audio",
    "stock_phrase",
    "repetition",
    "too_fast",
    "low_probability",
]
"""`possible_hallucination`: the server's own doubt. `silent_audio`: nothing in the audio it covers may be speech.
`stock_phrase`: the end of a video's subtitles, over a short and quiet stretch. `repetition`: the same words over and
over. `too_fast`: more text than anybody can say in that time. `low_probability`: Whisper's mean log probability is
below that at which it discards its own text."""

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

NEAR: Final = mulaw.SAMPLE_RATE
"""Whisper's times may be off by so many samples: speech this near may be what it heard."""

QUIET_PEAK: Final = 1000
"""A stretch without a higher sample (of 32767) is quiet: -30 dB of full scale. Speech on a telephone line has some
-26 dB as its mean (ITU-T G.100.1), and its peaks are 12 dB and more above that."""

SHORT_S: Final = 3.0
"""A stretch of up to this is short; the phrases take one to two seconds."""

COMPRESSION: Final = 2.4
"""Text that zlib makes smaller than by this factor is a loop: `compression_ratio_threshold` of OpenAI's Whisper."""

COMPRESSIBLE: Final = 100
"""Bytes below which the factor says nothing: "no no no no no no" is as regular, and people say it."""

LOOP_WORDS: Final = 16
LOOP_TURNS: Final = 4
"""A loop is the same words at least four times in a row, and sixteen words in all: laughter has fewer."""

LOOP_LONGEST: Final = 20
"""Words of one turn; longer ones are left to zlib."""

CHARACTERS_PER_S: Final = 40.0
"""Twice what is usual in the quickest of languages: Pellegrino, Coupe and Marsico (Language 87, 2011) count 7.8
syllables a second in Japanese and Spanish, which is some 20 letters and spaces of Spanish."""

SLACK_S: Final = 1.0
"""What is added to a stretch before its text is called too fast, as its ends are not exact."""

LOG_PROB: Final = -1.0
"""`logprob_threshold` of OpenAI's Whisper: below it, it decodes again, or takes the stretch for silence."""

LONGEST: Final = 5_000
"""Characters that are looked at. The 30 s of a final hold fewer than 1,000."""


def reasons(heard: "Heard", peak: int | None) -> tuple[Reason, ...]:
    """Why `heard` may not have been said, in the order of `REASONS`; usually nothing. Never raises.

    `peak` is the highest sample (of 32767) of the audio it covers and of what is `NEAR`; None where that is not known.
    """
    text, seconds = heard.text[:LONGEST], (heard.end - heard.start) / mulaw.SAMPLE_RATE
    found: set[str] = {*heard.suspect}
    if heard.timed and peak is not None:
        if peak <= LOUD_PEAK:
            found.add("silent_audio")
        if peak <= QUIET_PEAK and seconds <= SHORT_S and is_stock_phrase(text):
            found.add("stock_phrase")
    if _repeats(text):
        found.add("repetition")
    if heard.timed and len(heard.text) > CHARACTERS_PER_S * (seconds + SLACK_S):
        found.add("too_fast")
    if heard.log_prob is not None and heard.log_prob < LOG_PROB:
        found.add("low_probability")
    return tuple(reason for reason in REASONS if reason in found)


def _repeats(text: str) -> bool:
    """Whether the text runs in a circle. Digits may: account numbers do, and so do ages and years in a list."""
    words = [word for token in tokens(text.casefold()) if not (word := token.group())[0].isdecimal()]
    words = [word for word in words if word not in NUMBER_WORDS]
    said = " ".join(words).encode(errors="replace")
    if len(said) >= COMPRESSIBLE and len(said) > COMPRESSION * len(zlib.compress(said)):
        return True
    return any(_longest_loop(words, step) >= LOOP_WORDS for step in range(1, LOOP_LONGEST + 1))


def _longest_loop(words: list[str], step: int) -> int:
    """How many words in a row are turns of `step` words that are the same; 0 if they are fewer than `LOOP_TURNS`."""
    longest = same = 0
    for n in range(step, len(words)):
        same = same + 1 if words[n] == words[n - step] else 0
        longest = max(longest, same)
    return longest + step if longest >= (LOOP_TURNS - 1) * step else 0
