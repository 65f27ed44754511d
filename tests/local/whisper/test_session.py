import json
from typing import Any

import pytest

from bridge.local.whisper.engine import Options, Recognition
from bridge.local.whisper.session import (
    REASON,
    Action,
    AskFinal,
    AskPartial,
    Close,
    Feed,
    Open,
    Send,
    Session,
)
from tests.doubles.scripted_engine import recognition

FRAME = bytes(1024)
NOW = 1787392800.5
SHORT = '{"streaming_vad_config": {"min_silence_duration_ms": 32}}'
PARTIALS = (
    '{"streaming_params": {"enable_partial_transcripts": true, "partial_transcript_interval_s": 0.1},'
    ' "streaming_vad_config": {"min_silence_duration_ms": 32}}'
)
SEED = '{"streaming_whisper_params": {"show_word_timestamps": true}, "vad_params": {"min_silence_duration_ms": 32}}'


class Heard:
    """A session whose VAD says what the test says."""

    def __init__(self, start: str = SHORT) -> None:
        self._probability = 0.0
        self.session = Session(lambda _: self._probability)
        assert self.session.receive(start, NOW) == []

    def silence(self, frames: int = 1) -> list[Action]:
        return self._audio(0.0, frames)

    def speech(self, frames: int = 1) -> list[Action]:
        return self._audio(0.9, frames)

    def utterance(self) -> list[Action]:
        return [*self.speech(), *self.silence(2)]

    def text(self, **message: Any) -> list[dict[str, Any]]:
        return sent(self.session.receive(json.dumps(message), NOW))

    def _audio(self, probability: float, frames: int) -> list[Action]:
        self._probability = probability
        return [action for _ in range(frames) for action in self.session.receive(FRAME, NOW)]


def sent(actions: list[Action]) -> list[dict[str, Any]]:
    return [json.loads(action.text) for action in actions if isinstance(action, Send)]


@pytest.mark.parametrize("frame", ["", "{", '{"unknown": 1}', FRAME, b"{}"])
def test_a_bad_start_closes_with_1011_and_no_json(frame: str | bytes) -> None:
    assert Session(lambda _: 0.0).receive(frame, NOW) == [Close(1011, REASON)]


def test_a_good_start_is_not_acknowledged() -> None:
    session = Session(lambda _: 0.0)
    assert not session.started
    assert session.receive("{}", NOW) == []
    assert session.started


def test_silence_says_nothing() -> None:
    assert Heard().silence(2000) == []


def test_speech_is_opened_fed_and_asked_for() -> None:
    heard = Heard('{"whisper_params": {"audio_language": "es", "prompt": "Acme"}, "streaming_vad_config": '
                  '{"min_silence_duration_ms": 32}}')  # fmt: skip
    assert heard.speech() == [Open(1, Options("es", "Acme")), Feed(1, FRAME)]
    assert heard.silence(2) == [Feed(1, FRAME), Feed(1, FRAME), AskFinal(1)]
    assert heard.session.waiting == 1


def test_a_final_in_full() -> None:
    heard = Heard('{"whisper_params": {"show_word_timestamps": true}, "streaming_vad_config": '
                  '{"min_silence_duration_ms": 32}}')  # fmt: skip
    heard.silence(20)
    heard.utterance()
    assert sent(heard.session.final(1, recognition("good morning", 0.5))) == [
        {
            "type": "transcription",
            "is_final": True,
            "transcription_num": 1,
            "language_code": "en",
            "language_prob": None,
            "audio_length_sec": 0.736,  # all 23 frames
            "segments": [
                {
                    "start_time": 0.384,  # 20 frames less 8 of lead-in
                    "end_time": 0.884,
                    "text": "good morning",
                    "log_prob": -0.2,
                    "word_timestamps": [
                        {
                            "word": "good",
                            "start_time": 0.384,
                            "end_time": 0.634,
                            "prob": 0.9,
                            "speaker": None,
                        },
                        {
                            "word": "morning",
                            "start_time": 0.634,
                            "end_time": 0.884,
                            "prob": 0.9,
                            "speaker": None,
                        },
                    ],
                    "speaker": None,
                    "speaker_confidence": None,
                    "possible_hallucination": False,
                    "beam_results": None,
                    "language_code": None,
                    "language_prob": None,
                }
            ],
            "diarization": [],
            "next_partial": None,
            "pipeline_latency": None,
            "timing_info": None,
            "enable_chunk_level_language_detection": False,
        }
    ]


def test_words_come_only_when_asked_for() -> None:
    heard = Heard()
    heard.utterance()
    (final,) = sent(heard.session.final(1, recognition("hello", 0.1)))
    assert final["segments"][0]["word_timestamps"] is None
    assert "transcript" not in final
    assert "is_end_of_audio_flush" not in final


def test_seed_sessions_also_get_the_transcript() -> None:
    heard = Heard(SEED)
    heard.utterance()
    (final,) = sent(heard.session.final(1, recognition("good morning", 0.1)))
    assert final["transcript"] == "good morning"
    assert len(final["segments"][0]["word_timestamps"]) == 2


def test_an_empty_final_is_still_a_final() -> None:
    heard = Heard()
    heard.utterance()
    (final,) = sent(heard.session.final(1, Recognition()))
    assert (final["is_final"], final["segments"]) == (True, [])


def test_finals_come_in_the_order_of_speech() -> None:
    heard = Heard()
    heard.utterance()
    heard.utterance()
    heard.utterance()
    assert heard.session.final(2, recognition("two", 0.1)) == []
    assert heard.session.failed(3, "no") == []
    messages = sent(heard.session.final(1, recognition("one", 0.1)))
    assert [message.get("transcription_num") for message in messages] == [1, 2, None]
    assert messages[2] == {"type": "error", "body": {"error": "no"}}
    assert heard.session.waiting == 0


def test_partials_come_by_audio_time_one_at_a_time() -> None:
    heard = Heard(PARTIALS)
    actions = heard.speech(4)
    # Every 100 ms: with the fourth frame after the start.
    assert not any(isinstance(action, AskPartial) for action in actions)
    assert heard.speech()[-1] == AskPartial(1)
    assert not any(isinstance(action, AskPartial) for action in heard.speech(20))
    (partial,) = sent(heard.session.partial(1, recognition("so far", 0.4)))
    assert (partial["is_final"], partial["transcription_num"]) == (False, 0)
    assert heard.speech()[-1] == AskPartial(1)


def test_a_partial_has_the_number_of_the_final_before() -> None:
    heard = Heard(PARTIALS)
    heard.utterance()
    heard.session.final(1, recognition("one", 0.1))
    heard.speech(6)
    assert sent(heard.session.partial(2, recognition("two", 0.1)))[0]["transcription_num"] == 1


def test_stale_and_empty_partials_are_not_sent() -> None:
    heard = Heard(PARTIALS)
    heard.speech(6)
    assert heard.session.partial(1, None) == []
    assert heard.session.partial(1, Recognition()) == []
    heard.silence(2)
    assert heard.session.partial(1, recognition("late", 0.1)) == []
    # The next utterance's partials wait for this one's final.
    assert not any(isinstance(action, AskPartial) for action in heard.speech(20))
    heard.session.final(1, recognition("one", 0.1))
    assert heard.speech()[-1] == AskPartial(2)


def test_without_partials_none_are_asked_for() -> None:
    assert not any(isinstance(action, AskPartial) for action in Heard().speech(200))


def test_end_audio_in_silence_finishes_at_once() -> None:
    assert Heard().text(type="end_audio", trace_id="t1") == [
        {"type": "end_audio", "trace_id": "t1", "timestamp": None, "body": {"status": "acknowledged"}},
        {"type": "end_audio", "trace_id": None, "timestamp": None, "body": {"status": "finished"}},
    ]


def test_end_audio_in_speech_brings_a_flush_final_and_then_finishes() -> None:
    heard = Heard()
    heard.utterance()
    heard.speech()
    actions = heard.session.receive('{"type": "end_audio"}', NOW)
    assert [message["body"]["status"] for message in sent(actions)] == ["acknowledged"]
    assert actions[-1] == AskFinal(2)
    assert heard.session.final(2, recognition("two", 0.1)) == []
    one, two, finished = sent(heard.session.final(1, recognition("one", 0.1)))
    assert "is_end_of_audio_flush" not in one
    assert two["is_end_of_audio_flush"] is True
    assert finished["body"]["status"] == "finished"


def test_audio_after_end_audio_is_not_heard() -> None:
    heard = Heard()
    heard.text(type="end_audio")
    assert heard.utterance() == []
    assert [message["body"] for message in heard.text(type="end_audio")] == [{"status": "acknowledged"}]


def test_health_check() -> None:
    heard = Heard()
    assert heard.text(type="health_check") == [
        {"type": "health_check", "trace_id": None, "timestamp": NOW, "body": {"healthy": True}}
    ]
    (reply,) = heard.text(
        type="health_check", trace_id="x", timestamp=1.0, body={"get_partial_interval": True}
    )
    assert reply["trace_id"] == "x"
    assert reply["body"] == {"healthy": True, "partial_interval": 0.5}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", "{}", '{"terminate_session": true}', '{"type": ["end_audio"]}']
)
def test_any_other_text_is_an_error_and_the_session_goes_on(text: str) -> None:
    heard = Heard()
    (error,) = sent(heard.session.receive(text, NOW))
    assert (error["type"], list(error["body"])) == ("error", ["error"])
    assert heard.text(type="health_check")[0]["body"]["healthy"]


@pytest.mark.parametrize("size", [0, 2, 320, 1022, 1023, 1025, 2048])
def test_a_frame_of_another_size_is_an_error_and_not_audio(size: int) -> None:
    heard = Heard()
    (error,) = sent(heard.session.receive(bytes(size), NOW))
    assert error["body"]["error"] == f"An audio frame must be 1024 bytes (512 samples), not {size}"
    assert heard.session.position == 0


def test_another_encoding_is_refused_once_on_the_first_chunk() -> None:
    heard = Heard('{"streaming_params": {"encoding": "pcm_mulaw"}}')
    assert sent(heard.speech(3)) == [{"type": "error", "body": {"error": "Unsupported encoding: pcm_mulaw"}}]
