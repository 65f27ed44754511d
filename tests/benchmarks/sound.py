"""How good the sound is that Whisper receives, against an ideal upsampling of what Twilio sent.

A call plays `played()` through a whole system: noise in the band of a voice, and then one loud sample, whose sound is
the response of the system's filter.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from bridge.audio import mulaw

RATE: Final = 8000
NOISE: Final = RATE
IMPULSE_AT: Final = NOISE + RATE // 4
LENGTH: Final = NOISE + 3 * RATE // 4
"""Samples at 8 kHz."""

BAND: Final = (300, 3400)
"""Hz of a telephone's voice (ITU-T G.712)."""

LOUDNESS: Final = 3000.0
"""The noise's root mean square in 16-bit steps: 21 dB below the loudest."""

LOUDEST: Final = 32124
"""The highest sample that mu-law has (ITU-T G.711)."""

EDGE: Final = 512
"""Samples at 16 kHz left out at either end of the noise: an ideal filter reaches far, and a real one begins once."""

DELAY: Final = 1600
"""Samples at 16 kHz that a system may be late by: 0.1 s."""

RESPONSE: Final = 256
"""Samples at 16 kHz on either side of the impulse in which a filter's response is over."""

Sound = NDArray[np.float64]


def played() -> bytes:
    """What the caller says, in mu-law."""
    spectrum = np.fft.rfft(np.random.default_rng(6).standard_normal(NOISE))
    hertz = np.fft.rfftfreq(NOISE, 1 / RATE)
    spectrum[(hertz < BAND[0]) | (hertz > BAND[1])] = 0
    noise = np.fft.irfft(spectrum, NOISE)
    samples = np.zeros(LENGTH)
    samples[:NOISE] = LOUDNESS * noise / noise.std()
    samples[IMPULSE_AT] = LOUDEST
    return mulaw.encode(np.rint(np.clip(samples, -LOUDEST, LOUDEST)).astype(np.int16))


def figures(heard: bytes) -> dict[str, float] | None:
    """What came of it at Whisper, 16-bit samples at 16 kHz, in dB; None if there is too little of it.

    `images_db` is the loudest mirror of a tone of the band, above 4 kHz, against that tone.
    """
    sound = np.frombuffer(heard, "<i2").astype(np.float64)
    if len(sound) < 2 * IMPULSE_AT + RESPONSE + DELAY:
        return None
    ideal = doubled(mulaw.decode(played()).astype(np.float64))
    alike = np.fft.irfft(np.fft.rfft(sound) * np.fft.rfft(ideal[: 2 * NOISE], len(sound)).conj(), len(sound))
    late = int(alike[:DELAY].argmax())
    steady = slice(EDGE, 2 * NOISE - EDGE)
    error = sound[late : late + 2 * NOISE] - ideal[: 2 * NOISE]
    middle = 2 * IMPULSE_AT + late
    response = np.abs(np.fft.rfft(sound[middle - RESPONSE : middle + RESPONSE], 2 * RATE))  # one for each Hz
    passed = response[BAND[0] : BAND[1] + 1]
    images = response[RATE - BAND[1] : RATE - BAND[0] + 1][::-1] / passed
    return {
        "snr_db": round(10 * _log(np.square(ideal[steady]).sum() / np.square(error[steady]).sum()), 1),
        "ripple_db": round(20 * _log(passed.max() / passed.min()), 3),
        "images_db": round(20 * _log(images.max()), 1),
        "delay_ms": round(1000 * late / (2 * RATE), 2),
    }


def doubled(samples: Sound) -> Sound:
    """The ideal: twice the rate and the same spectrum, with nothing above it."""
    spectrum = np.zeros(len(samples) + 1, complex)
    spectrum[: len(samples) // 2] = np.fft.rfft(samples)[:-1]
    both: Sound = 2 * np.fft.irfft(spectrum, 2 * len(samples))
    return both


def _log(ratio: float) -> float:
    return float(np.log10(ratio))
