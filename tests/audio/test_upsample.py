import numpy as np
from numpy.typing import NDArray
from scipy import signal

from bridge.audio import mulaw
from bridge.audio.upsample import DELAY_S, FRAME, FRAME_OUT, HISTORY, TAPS, WINDOW, Upsampler


def kernel() -> NDArray[np.float64]:
    """The whole 63-tap filter, with the gain of 2 that interpolation needs."""
    taps = np.zeros(63)
    taps[0::2] = np.array(TAPS) / 32768
    taps[31] = 1.0
    return taps


def response() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    frequency, gain = signal.freqz(kernel() / 2, worN=1 << 16, fs=16000)
    return frequency, 20 * np.log10(np.abs(gain) + 1e-12)


def upsampled(audio: bytes, rows: int) -> NDArray[np.int16]:
    padded = np.frombuffer(b"\xff" * HISTORY + audio, np.uint8)
    upsampler = Upsampler(rows)
    frames = []
    starts = list(range(0, len(audio), FRAME))
    for first in range(0, len(starts), rows):
        batch = starts[first : first + rows]
        for row, start in enumerate(batch):
            upsampler.windows[row] = padded[start : start + WINDOW]
        frames.append(upsampler.run(len(batch)).copy())
    return np.concatenate(frames).reshape(-1)


def test_ripple_up_to_3400_hz_is_below_a_twentieth_of_a_decibel() -> None:
    frequency, gain = response()
    band = gain[frequency <= 3400]
    assert band.max() - band.min() <= 0.05


def test_images_above_4600_hz_are_55_db_down() -> None:
    frequency, gain = response()
    assert gain[frequency >= 4600].max() <= -55


def test_delay_is_below_two_milliseconds() -> None:
    click = np.full(4 * FRAME, mulaw.SILENCE, np.uint8)
    click[FRAME] = 0x80
    at = int(np.abs(upsampled(click.tobytes(), 4).astype(int)).argmax())
    assert (at - 2 * FRAME) / 16000 == DELAY_S
    assert DELAY_S <= 0.002


def test_taps_are_what_scipy_designs() -> None:
    designed = np.round(signal.remez(32, [0, 3400], [1], fs=8000) * 32768)
    assert np.abs(designed - np.array(TAPS)).max() <= 1


def test_frames_equal_the_filter_written_out() -> None:
    audio = np.random.default_rng(7).integers(0, 256, 8 * FRAME, dtype=np.uint8).tobytes()
    linear = mulaw.decode(audio).astype(np.float64)
    spread = np.zeros(2 * len(linear))
    spread[0::2] = linear
    expected = np.clip(np.rint(np.convolve(spread, kernel())[: len(spread)]), -32768, 32767)
    assert (upsampled(audio, 8) == expected.astype(np.int16)).all()


def test_grouping_does_not_change_a_bit() -> None:
    audio = np.random.default_rng(8).integers(0, 256, 33 * FRAME, dtype=np.uint8).tobytes()
    alone = upsampled(audio, 1)
    for rows in (2, 3, 7, 16):
        assert (upsampled(audio, rows) == alone).all()
    assert alone.shape == (33 * FRAME_OUT,)


def test_speech_band_noise_keeps_40_db_against_ideal_upsampling() -> None:
    rng = np.random.default_rng(9)
    taps = signal.firwin(401, [300, 3400], pass_zero=False, fs=8000)
    noise = np.convolve(rng.normal(0, 1, 64 * FRAME), taps, "same")
    audio = mulaw.encode((noise / np.abs(noise).max() * 20000).astype(np.int16))
    linear = mulaw.decode(audio).astype(np.float64)
    ideal = signal.resample(linear, 2 * len(linear))
    ours = upsampled(audio, 16).astype(np.float64)
    ours, ideal = ours[31 + 4000 : -4000], ideal[4000 : -4000 - 31]
    error = ours - ideal
    # Mu-law's own noise lies partly above 3.4 kHz, where no filter with a transition band is ideal.
    band = signal.firwin(801, 3400, fs=16000)
    error, ideal = np.convolve(error, band, "valid"), np.convolve(ideal, band, "valid")
    assert 10 * np.log10((ideal**2).sum() / (error**2).sum()) >= 40
