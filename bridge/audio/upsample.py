"""From 8 kHz to 16 kHz: a 63-tap half-band filter over many frames at once.

The filter keeps no state of its own: its memory is the 31 samples before a frame, and those are in the
journal. So a frame's output depends on its position alone, however the audio was cut on its way here and
whichever calls it was computed together with. Sums are exact (16-bit samples times taps quantised to
2**-15 fit a double with room to spare), which makes every grouping give the same bits.
"""

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from bridge.audio import mulaw

FRAME: Final = 256
"""Samples at 8 kHz of one Whisper frame: 32 ms."""

FRAME_OUT: Final = 2 * FRAME
"""Samples at 16 kHz of one Whisper frame: what Baseten's VAD takes at a time."""

HISTORY: Final = 31
"""Samples before a frame that its output depends on."""

WINDOW: Final = HISTORY + FRAME
"""Mu-law bytes that one frame is computed from."""

DELAY_S: Final = 31 / 16000
"""Group delay of the 63-tap filter: 1.94 ms."""

_HALF: Final = (-9, 20, -40, 73, -124, 198, -302, 445, -640, 903, -1262, 1769, -2534, 3842, -6751, 20792)
TAPS: Final = (*_HALF, *reversed(_HALF))
"""The even output phase, scaled by 2**15. The odd phase is the input itself, 15 samples late.

`scipy.signal.remez(32, [0, 3400], [1], fs=8000)` rounded: 0.002 dB of ripple up to 3.4 kHz and images 76 dB
down above 4.6 kHz. Kept as numbers because importing scipy.signal costs 0.8 s; a test designs them again.
"""

_SCALE: Final = 32768.0
_BLOCK: Final = 32
_BLOCKS: Final = FRAME // _BLOCK
_REACH: Final = _BLOCK + HISTORY  # inputs that one block of outputs depends on


def _banded() -> NDArray[np.float64]:
    """The taps as a matrix [inputs of a block, outputs of a block], for one matrix product over all blocks."""
    matrix = np.zeros((_REACH, _BLOCK))
    for column in range(_BLOCK):
        matrix[column : column + HISTORY + 1, column] = TAPS[::-1]
    return matrix / _SCALE


_MATRIX: Final = _banded()
_LINEAR: Final = mulaw.DECODE.astype(np.float64)


class Upsampler:
    """Turns windows of mu-law into 16 kHz frames, up to `rows` of them in one go, over buffers it owns."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.windows: NDArray[np.uint8] = np.empty((rows, WINDOW), np.uint8)
        """In: `HISTORY` bytes before the frame, then the frame's own `FRAME` bytes, one row a frame."""
        self._bytes = memoryview(self.windows.reshape(-1))  # type: ignore[arg-type]  # an array is a buffer
        self._linear = np.empty((rows, WINDOW))
        row, column = self._linear.strides
        self._overlapping = as_strided(
            self._linear, (rows, _BLOCKS, _REACH), (row, _BLOCK * column, column), writeable=False
        )
        self._blocks = np.empty((rows, _BLOCKS, _REACH))
        self._even = np.empty((rows * _BLOCKS, _BLOCK))
        self._frames: NDArray[np.int16] = np.empty((rows, FRAME_OUT), np.int16)

    def load(self, row: int, window: bytes) -> None:
        """Put the `WINDOW` bytes that a frame is computed from into its row."""
        self._bytes[row * WINDOW : (row + 1) * WINDOW] = window

    def run(self, count: int) -> NDArray[np.int16]:
        """The frames [count, FRAME_OUT] of the first `count` windows; valid until the next call."""
        linear = self._linear[:count]
        _LINEAR.take(self.windows[:count], out=linear, mode="clip")  # "clip" skips the buffering of "raise"
        blocks = self._blocks[:count]
        blocks[:] = self._overlapping[:count]
        even = self._even[: count * _BLOCKS]
        np.matmul(blocks.reshape(-1, _REACH), _MATRIX, out=even)
        np.rint(even, out=even)
        np.minimum(even, 32767, out=even)  # np.clip costs three times as much for so few
        np.maximum(even, -32768, out=even)
        frames = self._frames[:count]
        frames[:, 0::2] = even.reshape(count, FRAME)
        frames[:, 1::2] = linear[:, HISTORY - 15 : HISTORY - 15 + FRAME]
        return frames
