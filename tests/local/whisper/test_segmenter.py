import pytest

from bridge.audio import voice
from bridge.local import speech
from bridge.local.whisper.segmenter import Audio, Began, Ended, Part, Segmenter
from bridge.local.whisper.start import Start, read
from bridge.local.whisper.vad import FRAME_SAMPLES
from tests.doubles.telephone import frames, telephone


def start_of(vad_config: str = "{}", max_s: int = 30) -> Start:
    return read(
        f'{{"streaming_vad_config": {vad_config}, "streaming_params": {{"final_transcript_max_duration_s": {max_s}}}}}'
    )


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * FRAME_SAMPLES


def cut(probabilities: list[float], start: Start) -> list[tuple[int, Part]]:
    """The parts of scripted speech, each with the number of its frame."""
    coming = iter(probabilities)
    segmenter = Segmenter(start, lambda _: next(coming))
    parts = [(i, part) for i in range(len(probabilities)) for part in segmenter.push(frame(i))]
    return [*parts, *((len(probabilities), part) for part in segmenter.finish())]


def utterances(pcm: bytes, start: Start) -> list[tuple[int, int]]:
    """First and last sample of each utterance in real speech."""
    segmenter = Segmenter(start, voice.load())
    found: list[tuple[int, int]] = []
    for piece in frames(pcm):
        for part in segmenter.push(piece):
            if isinstance(part, Began):
                found.append((part.first_sample, 0))
            elif isinstance(part, Ended):
                found[-1] = (found[-1][0], segmenter.position)
    return found


def test_the_recogniser_gets_audio_from_before_the_start() -> None:
    # 250 ms are 8 frames of 32 ms.
    parts = cut([*[0.0] * 20, 0.9], start_of())
    assert parts[0] == (20, Began(12 * FRAME_SAMPLES))
    assert parts[1] == (20, Audio(b"".join(frame(i) for i in range(12, 21))))


def test_speech_pad_makes_the_lead_in_longer() -> None:
    parts = cut([*[0.0] * 20, 0.9], start_of('{"speech_pad_ms": 64}'))
    assert parts[0] == (20, Began(10 * FRAME_SAMPLES))


def test_a_start_at_once_has_no_lead_in() -> None:
    assert cut([0.9], start_of())[:2] == [(0, Began(0)), (0, Audio(frame(0)))]


def test_no_audio_belongs_to_two_utterances() -> None:
    parts = cut([0.9, 0.0, 0.0, 0.9], start_of('{"min_silence_duration_ms": 32}'))
    assert [part for _, part in parts if isinstance(part, Began)] == [Began(0), Began(3 * FRAME_SAMPLES)]
    heard = b"".join(part.pcm for _, part in parts if isinstance(part, Audio))
    assert heard == b"".join(frame(i) for i in range(4))


def test_the_buffer_includes_leading_silence_but_never_more_than_the_maximum() -> None:
    short = cut([*[0.0] * 20, 0.9], start_of())
    assert short[-1] == (21, Ended(21 * FRAME_SAMPLES))
    long = cut([*[0.0] * 100, 0.9], start_of(max_s=1))
    assert long[-1] == (101, Ended(16_000 + FRAME_SAMPLES))


def test_long_speech_is_cut_and_goes_on_at_once() -> None:
    parts = cut([0.9] * 40, start_of(max_s=1))
    # 1 s is 31.25 frames: the 32nd is the first that reaches it.
    marks = [(i, part) for i, part in parts if not isinstance(part, Audio)]
    assert marks == [
        (0, Began(0)),
        (31, Ended(32 * FRAME_SAMPLES)),
        (31, Began(32 * FRAME_SAMPLES)),
        (40, Ended(8 * FRAME_SAMPLES)),
    ]


def test_nothing_to_finish_in_silence() -> None:
    assert cut([0.0] * 5, start_of()) == []


def test_real_speech_falls_apart_at_its_pauses() -> None:
    said = [line for line in speech.script() if line.speaker == "caller"]
    found = utterances(telephone(speech.CALLER), start_of('{"min_silence_duration_ms": 200}'))
    assert len(found) == len(said)
    for line, (first, last) in zip(said, found, strict=True):
        assert first / 16 <= line.start_ms + 100
        assert last / 16 >= line.end_ms - 100


@pytest.mark.parametrize(("settings", "fewer"), [('{"min_silence_duration_ms": 700}', True), ("{}", False)])
def test_longer_silence_joins_sentences(settings: str, fewer: bool) -> None:
    sentences = [line for line in speech.script() if line.speaker == "caller"]
    found = utterances(telephone(speech.CALLER), start_of(settings))
    assert (len(found) < len(sentences) - 1) is fewer


def test_a_higher_threshold_starts_later() -> None:
    pcm = telephone(speech.AGENT)[: 16_000 * 2 * 4]
    low = utterances(pcm, start_of('{"threshold": 0.1}'))[0]
    high = utterances(pcm, start_of('{"threshold": 0.95}'))[0]
    assert low[0] < high[0]


def test_silence_has_no_utterances() -> None:
    assert utterances(bytes(1024 * 100), start_of('{"threshold": 0.2}')) == []
