"""Whether audio came over a telephone: a narrow band leaves nothing above 5 kHz."""

import numpy as np

WINDOW = 512
"""Samples (32 ms at 16 kHz)."""

FIRST_BIN = 160
"""Of the window's spectrum: 5 kHz. Below, a telephone's upsampler may leave images of its 3.4 to 4 kHz."""

LEAST_POWER = 0.5
"""In squared steps of 16-bit audio: above rounding (1/12), below the breath of a quiet voice (measured: 0.2 to 80000)."""

LEAST_SHARE = 1e-5
"""Of all power: an upsampler's images are at least 55 dB down, wide-band speech has more than 46 dB."""

_TAPER = np.hanning(WINDOW)
_SCALE = 2 / (WINDOW * float(np.sum(_TAPER**2)))


def wide(pcm: bytes) -> bool:
    """Whether some 32 ms of s16le at 16 kHz hold sound that no telephone carries."""
    windows = np.frombuffer(pcm, "<i2")[: len(pcm) // 2 // WINDOW * WINDOW].reshape(-1, WINDOW)
    power = np.abs(np.fft.rfft(windows * _TAPER)) ** 2 * _SCALE
    above = power[:, FIRST_BIN:].sum(axis=1)
    return bool(above.max(initial=0.0) > LEAST_POWER and above.sum() > LEAST_SHARE * power[:, 1:].sum())
