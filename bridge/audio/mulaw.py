"""G.711 mu-law by table: one byte a sample at 8 kHz, the way Twilio sends telephone audio."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE: Final = 8000
"""Samples a second, and bytes a second, of telephone audio."""

SILENCE: Final = 0xFF
"""The byte that decodes to 0."""

_BIAS: Final = 0x84  # ITU-T G.711: 33 in 14 bits, 132 in 16 bits
_CLIP: Final = 32635  # the largest magnitude that still fits after the bias


def _decode_table() -> NDArray[np.int16]:
    code = ~np.arange(256, dtype=np.int32) & 0xFF  # the wire carries every bit inverted
    magnitude = (((code & 0x0F) << 3) + _BIAS << ((code & 0x70) >> 4)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


DECODE: Final = _decode_table()
"""int16[256]: the linear 16-bit value of each mu-law byte."""
DECODE.setflags(write=False)


def decode(data: bytes) -> NDArray[np.int16]:
    """The linear samples of mu-law bytes, one for each byte."""
    return DECODE[np.frombuffer(data, np.uint8)]


def encode(samples: NDArray[np.int16]) -> bytes:
    """The mu-law bytes of linear 16-bit samples, one for each sample."""
    wide = samples.astype(np.int32)
    magnitude = np.minimum(np.abs(wide), _CLIP) + _BIAS
    exponent = (
        np.frexp(magnitude.astype(np.float64))[1] - 8
    )  # the position of the highest set bit, above bit 7
    mantissa = (magnitude >> (exponent + 3)) & 0x0F
    sign = np.where(wide < 0, 0x80, 0)
    code: NDArray[np.uint8] = (~(sign | (exponent << 4) | mantissa) & 0xFF).astype(np.uint8)
    return code.tobytes()
