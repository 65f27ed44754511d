"""What the server says: each message as the JSON text that goes on the wire."""

from typing import Any

import msgspec

from bridge.local.whisper.engine import Recognition, Segment
from bridge.local.whisper.start import SAMPLE_RATE, Start

_encode = msgspec.json.Encoder().encode


def transcription(
    recognition: Recognition,
    start: Start,
    *,
    number: int,
    final: bool,
    first_sample: int,
    samples: int,
    flush: bool = False,
) -> str:
    """A transcript of one utterance.

    `number` counts finals: a final carries its own number, a partial that of the final before it.
    `first_sample` is the utterance's place in this socket's audio; `samples` is how much audio was
    buffered for it, leading silence included. `flush` marks the final that `end_audio` brought about.
    """
    offset_s = first_sample / SAMPLE_RATE
    segments = [_segment(segment, offset_s, words=start.word_timestamps) for segment in recognition.segments]
    message: dict[str, Any] = {
        "type": "transcription",
        "is_final": final,
        "transcription_num": number,
        "language_code": recognition.language or start.language,
        "language_prob": recognition.language_prob,
        "audio_length_sec": round(samples / SAMPLE_RATE, 3),
        "segments": segments,
        "diarization": [],
        "next_partial": None,
        "pipeline_latency": None,
        "timing_info": None,
        "enable_chunk_level_language_detection": False,
    }
    if start.dialect == "seed":
        message["transcript"] = " ".join(segment["text"] for segment in segments)
    if flush:
        message["is_end_of_audio_flush"] = True
    return _text(message)


def error(sentence: str) -> str:
    """Something the client sent, or asked for, could not be done."""
    return _text({"type": "error", "body": {"error": sentence}})


def end_audio(status: str, trace_id: str | None = None) -> str:
    """A step of the end of audio: `acknowledged`, and `finished` once every final has been sent."""
    return _text({"type": "end_audio", "trace_id": trace_id, "timestamp": None, "body": {"status": status}})


def health(now: float, trace_id: str | None = None, partial_interval_s: float | None = None) -> str:
    """The answer to `health_check`. `now` is Unix time in seconds."""
    body: dict[str, Any] = {"healthy": True}
    if partial_interval_s is not None:
        body["partial_interval"] = partial_interval_s
    return _text({"type": "health_check", "trace_id": trace_id, "timestamp": now, "body": body})


def _segment(segment: Segment, offset_s: float, *, words: bool) -> dict[str, Any]:
    return {
        "start_time": round(offset_s + segment.start_s, 3),
        "end_time": round(offset_s + segment.end_s, 3),
        "text": segment.text,
        "log_prob": segment.log_prob,
        "word_timestamps": [
            {
                "word": word.text,
                "start_time": round(offset_s + word.start_s, 3),
                "end_time": round(offset_s + word.end_s, 3),
                "prob": word.probability,
                "speaker": None,
            }
            for word in segment.words
        ]
        if words
        else None,
        "speaker": None,
        "speaker_confidence": None,
        "possible_hallucination": segment.possible_hallucination,
        "beam_results": None,
        "language_code": None,
        "language_prob": None,
    }


def _text(message: dict[str, Any]) -> str:
    return _encode(message).decode()
