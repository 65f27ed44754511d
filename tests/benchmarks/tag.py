"""Which track a frame of audio belongs to, said by the audio itself: Whisper's sockets are otherwise alike.

The bridge's filter passes every 8 kHz sample on unchanged, between two that it computes. So a track that
repeats two mu-law bytes, the digits of its number, can be told by any two such samples of a frame.
"""

import struct
from typing import Final

from bridge.audio import mulaw

FRAME_BYTES: Final = 1024
"""512 samples at 16 kHz: what Whisper takes at a time."""

MESSAGE: Final = 160
"""Bytes of mu-law in one media message: 20 ms."""

_BASE: Final = 120  # mu-law's first values all differ; 127 and 255 are both 0
_DIGIT: Final = {int(mulaw.DECODE[digit]): digit for digit in range(_BASE)}
_SAMPLES: Final = struct.Struct("<hxxh")
_AT: Final = 2 * 31  # samples 31 and 33: the first two that Twilio sent (15 samples late, in odd places)


def spoken(number: int) -> bytes:
    """A media message's audio that says a number below 14,400."""
    return bytes(divmod(number, _BASE)) * (MESSAGE // 2)


def widened(audio: bytes) -> bytes:
    """A frame that says what this audio says, with silence around it."""
    frame = bytearray(FRAME_BYTES)
    _SAMPLES.pack_into(frame, _AT, *(int(mulaw.DECODE[digit]) for digit in audio[:2]))
    return bytes(frame)


def heard(frame: bytes) -> int:
    """The number that a frame says; -1 if it says none."""
    first, second = _SAMPLES.unpack_from(frame, _AT)
    if first not in _DIGIT or second not in _DIGIT:
        return -1
    return _DIGIT[first] * _BASE + _DIGIT[second]
