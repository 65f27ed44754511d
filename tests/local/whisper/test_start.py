import json
from typing import Any

import pytest

from bridge.local.whisper.start import Accepted, StartError, read

SEED: dict[str, Any] = {
    "vad_params": {"threshold": 0.4, "min_silence_duration_ms": 500, "speech_pad_ms": 30},
    "streaming_whisper_params": {
        "encoding": "pcm_s16le",
        "sample_rate": 16000,
        "enable_partial_transcripts": True,
        "audio_language": "es",
        "show_word_timestamps": True,
    },
}
V1: dict[str, Any] = {
    "whisper_params": {"audio_language": "es", "show_word_timestamps": True, "prompt": "Acme Dental"},
    "streaming_params": {
        "encoding": "pcm_s16le",
        "sample_rate": 16000,
        "enable_partial_transcripts": True,
        "partial_transcript_interval_s": 1,
        "final_transcript_max_duration_s": 15,
    },
    "streaming_vad_config": {"threshold": 0.4, "min_silence_duration_ms": 500, "speech_pad_ms": 30},
}
HYBRID: dict[str, Any] = {"vad_params": {}, "streaming_params": {}, "whisper_params": {}}


@pytest.mark.parametrize(("message", "dialect"), [(SEED, "seed"), (V1, "v1")])
def test_both_dialects_say_the_same_things(message: dict[str, Any], dialect: str) -> None:
    start = read(json.dumps(message))
    assert start.dialect == dialect
    assert start.vad.threshold == 0.4
    assert start.vad.min_silence_duration_ms == 500
    assert start.vad.speech_pad_ms == 30
    assert start.partials
    assert start.language == "es"
    assert start.word_timestamps


def test_v1_carries_more() -> None:
    start = read(json.dumps(V1))
    assert (start.prompt, start.partial_interval_s, start.max_utterance_s) == ("Acme Dental", 1.0, 15)


def test_an_empty_message_is_v1_with_the_defaults() -> None:
    start = read("{}")
    assert (start.dialect, start.encoding, start.language) == ("v1", "pcm_s16le", "en")
    assert (start.partials, start.partial_interval_s, start.max_utterance_s) == (False, 0.5, 30)
    assert (start.vad.threshold, start.vad.min_silence_duration_ms, start.vad.speech_pad_ms) == (0.5, 300, 0)


def test_a_longer_maximum_is_clamped() -> None:
    assert read('{"streaming_params": {"final_transcript_max_duration_s": 90}}').max_utterance_s == 30


@pytest.mark.parametrize(
    ("message", "accepted", "good"),
    [
        (SEED, "seed", True),
        (SEED, "v1", False),
        (SEED, "any", True),
        (V1, "v1", True),
        (V1, "seed", False),
        (V1, "any", True),
        ({}, "seed", True),
        (HYBRID, "any", False),
        (HYBRID, "v1", False),
        (HYBRID, "seed", False),
    ],
)
def test_a_server_may_know_one_dialect_only(message: dict[str, Any], accepted: Accepted, good: bool) -> None:
    if good:
        read(json.dumps(message), accepted)
    else:
        with pytest.raises(StartError):
            read(json.dumps(message), accepted)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        '"hello"',
        '{"unknown": {}}',
        '{"streaming_params": {"unknown": 1}}',
        '{"whisper_params": {"unknown": 1}}',
        '{"whisper_params": {"whisper_sampling_params": {"unknown": 1}}}',
        '{"streaming_vad_config": {"unknown": 1}}',
        '{"vad_params": {"unknown": 1}}',
        '{"streaming_whisper_params": {"unknown": 1}}',
        '{"streaming_params": null}',
        '{"streaming_params": []}',
        '{"streaming_params": {"sample_rate": "16000"}}',
        '{"streaming_params": {"enable_partial_transcripts": 1}}',
        '{"streaming_params": {"partial_transcript_interval_s": 0}}',
        '{"whisper_params": {"audio_language": null}}',
        '{"streaming_vad_config": {"threshold": 1.5}}',
        '{"streaming_vad_config": {"threshold": "0.5"}}',
        '{"streaming_vad_config": {"min_silence_duration_ms": -1}}',
        '{"streaming_vad_config": {"min_silence_duration_ms": 300.5}}',
        '{"streaming_vad_config": {"sampling_rate": 44100}}',
        '{"vad_params": {"threshold": true}}',
    ],
)
def test_whatever_is_not_right_is_refused(text: str) -> None:
    with pytest.raises(StartError):
        read(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(StartError):
        read(b"\xff\xfe{}")
