import json

import pytest

from bridge.config import VadConfig, WhisperConfig
from bridge.whisper.protocol import (
    END_AUDIO,
    Dialect,
    EndOfAudio,
    Health,
    Ignored,
    ServerError,
    Transcription,
    parse,
    start_message,
)

SETTINGS = WhisperConfig(
    language="es",
    partials=True,
    prompt="Acme Dental",
    vad=VadConfig(threshold=0.4, min_silence_duration_ms=500, speech_pad_ms=60),
)


def test_start_in_the_current_dialect() -> None:
    assert json.loads(start_message(Dialect.V1, SETTINGS)) == {
        "whisper_params": {"audio_language": "es", "show_word_timestamps": True, "prompt": "Acme Dental"},
        "streaming_params": {
            "encoding": "pcm_s16le",
            "sample_rate": 16000,
            "enable_partial_transcripts": True,
        },
        "streaming_vad_config": {"threshold": 0.4, "min_silence_duration_ms": 500, "speech_pad_ms": 60},
    }


def test_start_in_the_first_dialect() -> None:
    assert json.loads(start_message(Dialect.SEED, SETTINGS)) == {
        "vad_params": {"threshold": 0.4, "min_silence_duration_ms": 500, "speech_pad_ms": 60},
        "streaming_whisper_params": {
            "encoding": "pcm_s16le",
            "sample_rate": 16000,
            "enable_partial_transcripts": True,
            "audio_language": "es",
            "show_word_timestamps": True,
        },
    }


def test_an_empty_prompt_is_left_out() -> None:
    assert "prompt" not in start_message(Dialect.V1, WhisperConfig())


def test_end_audio() -> None:
    assert json.loads(END_AUDIO) == {"type": "end_audio"}


FINAL = {
    "type": "transcription",
    "is_final": True,
    "transcription_num": 3,
    "language_code": "en",
    "language_prob": None,
    "audio_length_sec": 4.13,
    "segments": [
        {
            "start_time": 12.42,
            "end_time": 15.9,
            "text": "I'd like to move my appointment.",
            "log_prob": -0.31,
            "word_timestamps": [
                {"word": "I'd", "start_time": 12.42, "end_time": 12.6, "prob": 0.97, "speaker": None}
            ],
            "possible_hallucination": False,
        }
    ],
    "diarization": [],
    "next_partial": None,
}


def test_a_full_final() -> None:
    said = parse(json.dumps(FINAL))
    assert isinstance(said, Transcription)
    assert (said.is_final, said.text, said.language) == (True, "I'd like to move my appointment.", "en")
    (segment,) = said.segments
    assert (segment.start_s, segment.end_s, segment.log_prob) == (12.42, 15.9, -0.31)
    (word,) = segment.words
    assert (word.word, word.start_s, word.end_s, word.probability) == ("I'd", 12.42, 12.6, 0.97)


@pytest.mark.parametrize(
    ("message", "final", "text"),
    [
        ({"is_final": True, "transcript": "no type"}, True, "no type"),
        ({"is_final": False, "transcript": "so far"}, False, "so far"),
        ({"is_final": "true", "transcript": "as text"}, True, "as text"),
        (
            {"type": "transcription", "is_final": True, "segments": [{"text": " a "}, {"text": "b"}]},
            True,
            "a b",
        ),
        (
            {"type": "transcription", "is_final": True, "transcript": "", "segments": [{"text": "x"}]},
            True,
            "x",
        ),
        (
            {"type": "transcription", "is_final": True, "transcript": "top", "segments": [{"text": "x"}]},
            True,
            "top",
        ),
        ({"type": "transcription", "is_final": True, "segments": []}, True, ""),
        ({"type": "transcription", "is_final": True, "segments": None}, True, ""),
        ({"type": "transcription", "is_final": True, "segments": "no list"}, True, ""),
        ({"type": "transcription", "segments": [{"text": "no flag"}]}, False, "no flag"),
        (
            {"type": "transcription", "is_final": True, "transcript": "nul\u0000 and \u001b[31mred"},
            True,
            "nul and [31mred",
        ),
        ({"type": "transcription", "is_final": True, "transcript": "half \ud800 pair"}, True, "half pair"),
    ],
)
def test_every_shape_of_a_transcription(message: dict[str, object], final: bool, text: str) -> None:
    said = parse(json.dumps(message))
    assert isinstance(said, Transcription)
    assert (said.is_final, said.text) == (final, text)
    said.text.encode()


@pytest.mark.parametrize(
    "times",
    [
        {},
        {"start_time": None, "end_time": 1},
        {"start_time": -1, "end_time": 1},
        {"start_time": 2, "end_time": 1},
        {"start_time": "1", "end_time": "2"},
        {"start_time": True, "end_time": True},
        {"start_time": 0, "end_time": 1e12},
        {"start_time": 0, "end_time": 10**400},
    ],
)
def test_times_that_cannot_be_are_unknown(times: dict[str, object]) -> None:
    said = parse(
        json.dumps({"type": "transcription", "is_final": True, "segments": [{"text": "x", **times}]})
    )
    assert isinstance(said, Transcription)
    assert (said.segments[0].start_s, said.segments[0].end_s) == (None, None)


def test_nan_is_not_a_time() -> None:
    said = parse(
        '{"type":"transcription","is_final":true,"segments":[{"text":"x","start_time":NaN,"end_time":1}]}'
    )
    assert isinstance(said, Transcription)
    assert said.segments[0].start_s is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            '{"type":"end_audio","trace_id":"t1","timestamp":null,"body":{"status":"acknowledged"}}',
            EndOfAudio(False),
        ),
        (
            '{"type":"end_audio","trace_id":null,"timestamp":null,"body":{"status":"finished"}}',
            EndOfAudio(True),
        ),
        ('{"type":"end_audio","body":null}', EndOfAudio(False)),
        ('{"type":"error","body":{"error":"bad frame"}}', ServerError("bad frame")),
        ('{"type":"error","message":"bad start"}', ServerError("bad start")),
        ('{"type":"error","body":"plain"}', ServerError("plain")),
        ('{"type":"error"}', ServerError("no reason given")),
        ('{"type":"health_check","body":{"healthy":true}}', Health()),
        ('{"type":"session.created"}', Ignored("unknown")),
        ('{"hello":1}', Ignored("unknown")),
        ("[1]", Ignored("malformed")),
        ("null", Ignored("malformed")),
        ('{"type":', Ignored("malformed")),
        ("", Ignored("malformed")),
        ("[" * 100_000, Ignored("malformed")),
        (b"\xff\xfe", Ignored("malformed")),
    ],
)
def test_everything_else(data: str | bytes, message: object) -> None:
    assert parse(data) == message
