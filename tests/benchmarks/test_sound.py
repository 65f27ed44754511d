import numpy as np
import pytest

from bridge.audio import mulaw
from bridge.audio.upsample import FRAME, HISTORY, Upsampler
from tests.benchmarks import sound
from tests.benchmarks.tutorial import upsampled


def pcm(samples: sound.Sound) -> bytes:
    return np.rint(np.clip(samples, -32768, 32767)).astype("<i2").tobytes()


def test_the_ideal_keeps_every_sample_and_a_tone_is_the_same_tone() -> None:
    time = np.arange(800) / sound.RATE
    tone = np.cos(2 * np.pi * 1000 * time)

    twice = sound.doubled(tone)

    assert twice[::2] == pytest.approx(tone, abs=1e-9)
    assert twice[1::2] == pytest.approx(np.cos(2 * np.pi * 1000 * (time + 1 / 16000)), abs=1e-9)


def test_the_ideal_itself_is_as_good_as_16_bits_are_wherever_it_begins() -> None:
    ideal = sound.doubled(mulaw.decode(sound.played()).astype(np.float64))

    found = sound.figures(pcm(np.concatenate([np.zeros(77), ideal, np.zeros(500)])))

    assert found is not None
    assert found["snr_db"] > 75
    assert found["delay_ms"] == round(77 / 16, 2)


def test_the_bridge_s_filter_beside_the_tutorial_s_interpolation() -> None:
    played = np.frombuffer(sound.played(), np.uint8)
    frames = len(played) // FRAME
    padded = np.concatenate([np.full(HISTORY, mulaw.SILENCE, np.uint8), played])
    filtered = []
    upsampler = Upsampler(1)
    for frame in range(frames):
        upsampler.windows[0] = padded[frame * FRAME : frame * FRAME + HISTORY + FRAME]
        filtered.append(upsampler.run(1)[0].tobytes())
    interpolated, last = [], np.int16(0)
    for at in range(0, len(played), 160):
        samples, last = upsampled(played[at : at + 160].tobytes(), last)
        interpolated.append(samples)

    bridge, tutorial = sound.figures(b"".join(filtered)), sound.figures(b"".join(interpolated))

    assert bridge is not None
    assert tutorial is not None
    assert bridge["snr_db"] > 40
    assert bridge["ripple_db"] < 0.01
    assert bridge["images_db"] < -70
    assert bridge["delay_ms"] == round(31 / 16, 2)
    assert 10 < tutorial["snr_db"] < 15
    assert tutorial["images_db"] == pytest.approx(-4.2, abs=1)


def test_too_little_sound_has_no_figures() -> None:
    assert sound.figures(b"\0\0" * sound.LENGTH) is None
