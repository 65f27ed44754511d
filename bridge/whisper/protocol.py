"""Baseten's streaming Whisper protocol, sans-I/O: what is said to the server, and what it says back.

The client speaks first: one text message with the session's parameters (in one of two dialects), then binary
frames of exactly 512 samples (16 kHz, s16le), then `end_audio`. The server answers a good start with nothing,
sends `transcription` messages while audio flows, and says `finished` after the last one; it leaves closing the
socket to us. Deployments differ in which keys they send, so reading is tolerant: whatever has text is kept.
"""

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from bridge.config import WhisperConfig

SAMPLE_RATE: Final = 16000

END_AUDIO: Final = json.dumps({"type": "end_audio"})
"""Text message after the last frame: finalise what you have."""

HEALTH_CHECK: Final = json.dumps({"type": "health_check"})
"""Text message at any time after the start: say that you live."""

REJECTED_CLOSE_CODES: Final = frozenset({1003, 1007, 1008, 1011})
"""Close codes with which servers answer a start message they do not accept (1011 at Baseten)."""

_LONGEST_S: Final = 7 * 86400.0  # times beyond a week of audio are not times


class Dialect(StrEnum):
    """The two forms of the start message that deployments of streaming Whisper accept."""

    V1 = "v1"
    """Baseten's current reference: `whisper_params`, `streaming_params`, `streaming_vad_config`."""
    SEED = "seed"
    """The form of Baseten's first blog post: `streaming_whisper_params` and `vad_params`."""

    @property
    def other(self) -> "Dialect":
        """The dialect to try when this one is rejected."""
        return Dialect.SEED if self is Dialect.V1 else Dialect.V1


@dataclass(frozen=True, slots=True)
class WordTime:
    """A word and its place in the audio of this socket, in seconds."""

    word: str
    start_s: float
    end_s: float
    probability: float | None


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text and its place in the audio of this socket, in seconds; None where unknown."""

    text: str
    start_s: float | None
    end_s: float | None
    log_prob: float | None
    words: tuple[WordTime, ...]
    possible_hallucination: bool


@dataclass(frozen=True, slots=True)
class Transcription:
    """What was understood: a partial replaces the one before it, a final stands."""

    is_final: bool
    text: str
    segments: tuple[Segment, ...]
    language: str | None
    number: int | None = None
    """The server's own count, which differs between servers: good for telling a repetition, and nothing else."""

    @property
    def kind(self) -> str:
        """`final` or `partial`."""
        return "final" if self.is_final else "partial"


@dataclass(frozen=True, slots=True)
class EndOfAudio:
    """The server's answer to `end_audio`: acknowledged (transcripts may follow) or finished (none will)."""

    finished: bool

    @property
    def kind(self) -> str:
        """`finished` or `acknowledged`."""
        return "finished" if self.finished else "acknowledged"


@dataclass(frozen=True, slots=True)
class ServerError:
    """The server could not use something it was sent."""

    reason: str
    kind: ClassVar[str] = "error"


@dataclass(frozen=True, slots=True)
class Health:
    """The server's answer to `health_check`: whatever it says of itself, it is there."""

    kind: ClassVar[str] = "health_check"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that means nothing here: unknown types, malformed JSON."""

    kind: str


Message = Transcription | EndOfAudio | ServerError | Health | Ignored


def start_message(dialect: Dialect, whisper: "WhisperConfig") -> str:
    """The first message of a session. Empty options are left out, since older servers reject keys they lack."""
    audio = {
        "encoding": "pcm_s16le",
        "sample_rate": SAMPLE_RATE,
        "enable_partial_transcripts": whisper.partials,
    }
    vad = {
        "threshold": whisper.vad.threshold,
        "min_silence_duration_ms": whisper.vad.min_silence_duration_ms,
        "speech_pad_ms": whisper.vad.speech_pad_ms,
    }
    speech: dict[str, Any] = {"audio_language": whisper.language, "show_word_timestamps": True}
    if dialect is Dialect.SEED:
        return json.dumps({"vad_params": vad, "streaming_whisper_params": audio | speech})
    if whisper.prompt:
        speech["prompt"] = whisper.prompt
    return json.dumps({"whisper_params": speech, "streaming_params": audio, "streaming_vad_config": vad})


def parse(data: str | bytes) -> Message:
    """Read one message of the server. Never raises: what cannot be read is `Ignored`."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return Ignored("malformed")
    if not isinstance(message, dict):
        return Ignored("malformed")
    kind = message.get("type")
    if kind == "end_audio":
        body = message.get("body")
        return EndOfAudio(finished=isinstance(body, dict) and body.get("status") == "finished")
    if kind == "error":
        return ServerError(_error_text(message))
    if kind == "transcription" or (kind is None and "is_final" in message):
        return _transcription(message)
    return Health() if kind == "health_check" else Ignored("unknown")


def _transcription(message: Mapping[str, Any]) -> Transcription:
    raw = message.get("segments")
    segments = (
        tuple(_segment(item) for item in raw if isinstance(item, dict)) if isinstance(raw, list) else ()
    )
    text = _clean(message.get("transcript")) or " ".join(s.text for s in segments if s.text)
    language, number = message.get("language_code"), message.get("transcription_num")
    return Transcription(
        is_final=message.get("is_final") in (True, "true"),
        text=text,
        segments=segments,
        language=language if isinstance(language, str) and language else None,
        number=number if isinstance(number, int) and not isinstance(number, bool) else None,
    )


def _segment(item: Mapping[str, Any]) -> Segment:
    raw = item.get("word_timestamps")
    words = [_word(entry) for entry in raw if isinstance(entry, dict)] if isinstance(raw, list) else []
    start, end = _span(item.get("start_time"), item.get("end_time"))
    return Segment(
        text=_clean(item.get("text")),
        start_s=start,
        end_s=end,
        log_prob=_number(item.get("log_prob")),
        words=tuple(word for word in words if word is not None),
        possible_hallucination=item.get("possible_hallucination") is True,
    )


def _word(entry: Mapping[str, Any]) -> WordTime | None:
    word = _clean(entry.get("word"))
    start, end = _span(entry.get("start_time"), entry.get("end_time"))
    if not word or start is None or end is None:
        return None
    return WordTime(word, start, end, _number(entry.get("prob")))


def _span(start: Any, end: Any) -> tuple[float | None, float | None]:
    first, last = _number(start), _number(end)
    if first is None or last is None or not 0 <= first <= last <= _LONGEST_S:
        return None, None
    return first, last


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _clean(text: Any) -> str:
    """Text with one space between words and without what no speech contains: controls, lone surrogates."""
    if not isinstance(text, str):
        return ""
    kept = "".join(c if unicodedata.category(c) not in {"Cc", "Cs"} else " " for c in text)
    return " ".join(kept.split())


def _error_text(message: Mapping[str, Any]) -> str:
    body = message.get("body")
    for found in (body.get("error") if isinstance(body, dict) else body, message.get("message")):
        if isinstance(found, str):
            return _clean(found)[:200]
    return "no reason given"
