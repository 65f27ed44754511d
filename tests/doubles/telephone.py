"""Speech as it reaches the Whisper server: 8 kHz WAV, through mu-law, to 16 kHz frames."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bridge.audio import mulaw
from bridge.audio.upsample import TAPS
from bridge.audio.wav import TELEPHONE_HZ, read_mono

FRAME_BYTES = 1024


def telephone(path: Path, *, gain: float = 1.0, shift_ms: int = 0) -> bytes:
    """A WAV as whole frames of s16le at 16 kHz, `shift_ms` later than in the file."""
    narrow = np.clip(read_mono(path, TELEPHONE_HZ).astype(np.float64) * gain, -32768, 32767)
    narrow = np.concatenate([np.zeros(shift_ms * TELEPHONE_HZ // 1000), narrow])
    heard = mulaw.decode(mulaw.encode(narrow.astype(np.int16))).astype(np.float64)
    wide = np.zeros(2 * len(heard))
    wide[0::2] = np.convolve(heard, np.array(TAPS) / 32768)[: len(heard)]
    wide[31::2] = heard[:-15]
    pcm = np.clip(np.rint(wide), -32768, 32767).astype("<i2").tobytes()
    return pcm + bytes(-len(pcm) % FRAME_BYTES)


def frames(pcm: bytes) -> Iterator[bytes]:
    """The audio in frames of 1,024 bytes."""
    for start in range(0, len(pcm), FRAME_BYTES):
        yield pcm[start : start + FRAME_BYTES]


def silence(seconds: float) -> bytes:
    """About so much silence, in whole frames."""
    return bytes(round(seconds * 16_000 / 512) * FRAME_BYTES)
