"""The start message: the first frame of a session, in both dialects, read as strictly as the real server does.

Every group and key is optional, none may be unknown. `v1` is Baseten's current reference, `seed` the
shape of its first blog post about streaming Whisper.
"""

from typing import Annotated, Any, Literal

import msgspec

Dialect = Literal["v1", "seed"]
Accepted = Literal["v1", "seed", "any"]

SAMPLE_RATE = 16_000
"""Hz. The server's recogniser takes 16 kHz whatever `sample_rate` declares, as the real one does."""

MAX_UTTERANCE_S = 30
"""Whisper's window: a longer `final_transcript_max_duration_s` is clamped, not refused."""

Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=60_000)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class StartError(ValueError):
    """The start message cannot be used. The real server says nothing more than close code 1011."""


class Vad(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When speech begins and ends."""

    threshold: Probability = 0.5
    min_silence_duration_ms: Milliseconds = 300
    speech_pad_ms: Milliseconds = 0
    sampling_rate: Literal[8000, 16000] = 16000


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a session was asked for, whichever dialect it was said in."""

    dialect: Dialect
    vad: Vad
    encoding: str
    partials: bool
    partial_interval_s: float
    max_utterance_s: float
    language: str
    prompt: str
    word_timestamps: bool


class _SeedParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    encoding: str = "pcm_s16le"
    sample_rate: int = SAMPLE_RATE
    enable_partial_transcripts: bool = False
    partial_transcript_interval_s: Seconds = 0.5
    final_transcript_max_duration_s: Seconds = MAX_UTTERANCE_S
    audio_language: str = "en"
    prompt: str = ""
    show_word_timestamps: bool = False


class _Seed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vad_params: Vad = Vad()
    streaming_whisper_params: _SeedParams = _SeedParams()


class _SamplingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    beam_width: int | None = 1
    length_penalty: float | None = 2.0
    repetition_penalty: float | None = 1.01
    beam_search_diversity_rate: float | None = None
    no_repeat_ngram_size: int | None = None
    sampling_temperatures: list[float] = []
    max_new_tokens: int = 400


class _WhisperParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    prompt: str = ""
    prefix: str = ""
    audio_language: str = "en"
    language_detection_only: bool = False
    language_options: list[str] = []
    use_dynamic_preprocessing: bool = False
    show_word_timestamps: bool = False
    show_beam_results: bool = False
    whisper_sampling_params: _SamplingParams = _SamplingParams()
    output_language: str = "auto"
    enable_vad: bool = True
    enable_diarization: bool | None = None
    diarization_granularity: str = "sentence"
    enable_final_diarization: bool = False
    enable_chunk_level_language_detection: bool = False
    use_missing_chunk_retry: bool = False
    missing_chunk_wpm_threshold: float = 100


class _StreamingParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    encoding: str = "pcm_s16le"
    sample_rate: int = SAMPLE_RATE
    enable_partial_transcripts: bool = False
    partial_transcript_interval_s: Seconds = 0.5
    final_transcript_max_duration_s: Seconds = MAX_UTTERANCE_S
    prioritize_latency: bool = True
    skip_partial_if_hallucination: bool = True
    include_pipeline_latency_metric: bool = False


class _V1(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    whisper_params: _WhisperParams = _WhisperParams()
    streaming_params: _StreamingParams = _StreamingParams()
    streaming_vad_config: Vad = Vad()
    streaming_diarization_config: dict[str, Any] = {}
    diarization_config: dict[str, Any] = {}
    include_timing_info: bool = False
    stream_id: str | None = None


_READ_SEED = msgspec.json.Decoder(_Seed).decode
_READ_V1 = msgspec.json.Decoder(_V1).decode


def read(text: str | bytes, accepted: Accepted = "any") -> Start:
    """Read a start message in one of the accepted dialects.

    Raises `StartError` for bad JSON, an unknown key at any level, a wrong type or a value out of range.
    """
    try:
        seed = accepted == "seed" or (accepted == "any" and _looks_like_seed(text))
        return _from_seed(_READ_SEED(text)) if seed else _from_v1(_READ_V1(text))
    except (msgspec.DecodeError, UnicodeError) as error:  # ValidationError is a DecodeError
        raise StartError(str(error)) from error


def _looks_like_seed(text: str | bytes) -> bool:
    message = msgspec.json.decode(text)
    return isinstance(message, dict) and not message.keys().isdisjoint(_Seed.__struct_fields__)


def _from_seed(message: _Seed) -> Start:
    params = message.streaming_whisper_params
    return Start(
        dialect="seed",
        vad=message.vad_params,
        encoding=params.encoding,
        partials=params.enable_partial_transcripts,
        partial_interval_s=params.partial_transcript_interval_s,
        max_utterance_s=min(params.final_transcript_max_duration_s, MAX_UTTERANCE_S),
        language=params.audio_language,
        prompt=params.prompt,
        word_timestamps=params.show_word_timestamps,
    )


def _from_v1(message: _V1) -> Start:
    whisper, streaming = message.whisper_params, message.streaming_params
    return Start(
        dialect="v1",
        vad=message.streaming_vad_config,
        encoding=streaming.encoding,
        partials=streaming.enable_partial_transcripts,
        partial_interval_s=streaming.partial_transcript_interval_s,
        max_utterance_s=min(streaming.final_transcript_max_duration_s, MAX_UTTERANCE_S),
        language=whisper.audio_language,
        prompt=whisper.prompt,
        word_timestamps=whisper.show_word_timestamps,
    )
