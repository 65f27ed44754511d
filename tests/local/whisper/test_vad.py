from bridge.local.whisper.start import Vad
from bridge.local.whisper.vad import Edge, Speech


def edges(probabilities: list[float], settings: Vad) -> list[tuple[int, Edge]]:
    speech = Speech(settings)
    told = [(i, speech.push(probability)) for i, probability in enumerate(probabilities)]
    return [(i, edge) for i, edge in told if edge is not None]


def test_speech_starts_at_the_threshold() -> None:
    assert edges([0.49, 0.5], Vad(threshold=0.5)) == [(1, Edge.STARTED)]
    assert edges([0.49], Vad(threshold=0.5)) == []


def test_speech_ends_after_enough_silence() -> None:
    # 300 ms after the first silent frame: the tenth 32 ms frame that follows it.
    silence = [0.0] * 20
    assert edges([0.9, *silence], Vad(min_silence_duration_ms=300)) == [(0, Edge.STARTED), (11, Edge.ENDED)]
    assert edges([0.9, *silence], Vad(min_silence_duration_ms=0)) == [(0, Edge.STARTED), (1, Edge.ENDED)]
    assert edges([0.9, *silence], Vad(min_silence_duration_ms=1000)) == [(0, Edge.STARTED)]


def test_silence_counts_only_well_below_the_threshold() -> None:
    settings = Vad(threshold=0.5, min_silence_duration_ms=64)
    assert edges([0.9, *[0.36] * 50], settings) == [(0, Edge.STARTED)]
    assert edges([0.9, *[0.34] * 50], settings) == [(0, Edge.STARTED), (3, Edge.ENDED)]


def test_speech_in_between_starts_the_count_anew() -> None:
    settings = Vad(min_silence_duration_ms=96)
    assert edges([0.9, 0.1, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1], settings) == [
        (0, Edge.STARTED),
        (8, Edge.ENDED),
    ]


def test_a_doubtful_frame_neither_ends_silence_nor_speech() -> None:
    settings = Vad(min_silence_duration_ms=96)
    assert edges([0.9, 0.1, 0.4, 0.4, 0.4, 0.1], settings) == [(0, Edge.STARTED), (5, Edge.ENDED)]


def test_speech_can_end_at_a_low_threshold() -> None:
    assert edges([0.2, 0.0, 0.0], Vad(threshold=0.1, min_silence_duration_ms=32)) == [
        (0, Edge.STARTED),
        (2, Edge.ENDED),
    ]
