import numpy as np
import pytest

from bridge.local import speech
from bridge.local.whisper.bandwidth import wide
from tests.doubles.telephone import silence, telephone


@pytest.mark.parametrize("gain", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("line", speech.script())
def test_a_telephone_is_narrow(line: speech.Line, gain: float) -> None:
    path = speech.CALLER if line.speaker == "caller" else speech.AGENT
    start = (line.start_ms - 250) // 32 * 1024
    assert not wide(telephone(path, gain=gain)[start : start + 9 * 1024])


@pytest.mark.parametrize("level", [5, 100, 3000])
def test_a_microphone_is_wide(level: int) -> None:
    breath = np.random.default_rng(0).normal(0, level, 9 * 512)
    assert wide(breath.astype("<i2").tobytes())


def test_a_whistle_or_nothing_is_narrow() -> None:
    tone = 8000 * np.sin(np.arange(9 * 512) * 2 * np.pi * 1000 / 16_000)
    assert not wide(tone.astype("<i2").tobytes())
    assert not wide(silence(0.3))
    assert not wide(b"")
    assert not wide(b"\x01\x00")
