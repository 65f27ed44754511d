"""Which track a frame of audio belongs to, said by the audio itself: Whisper's sockets are otherwise alike.

A bridge passes every 8 kHz sample on unchanged, between two that it computes. So a track that repeats two mu-law
bytes, the digits of its number, can be told by any two such samples of a frame: the digits tell their places themselves.
"""

import struct
from typing import Final

from bridge.audio import mulaw

FRAME_BYTES: Final = 1024
"""512 samples at 16 kHz: what Whisper takes at a time."""

MESSAGE: Final = 160
"""Bytes of mu-law in one media message: 20 ms."""

_BASE: Final = 60
"""Digits of one place; those of the other follow them. mu-law's first 120 values all differ (127 and 255 are both 0)."""

NUMBERS: Final = _BASE * _BASE

_DIGIT: Final = {int(mulaw.DECODE[digit]): digit for digit in range(2 * _BASE)}
_SAMPLES: Final = struct.Struct("<hxxh")
_AT: Final = (
    2 * 31
)  # samples 31 and 33: with the bridge's filter the first two that Twilio sent, 15 samples late


def spoken(number: int) -> bytes:
    """A media message's audio that says a number below `NUMBERS`."""
    high, low = divmod(number, _BASE)
    return bytes((high, _BASE + low)) * (MESSAGE // 2)


def widened(audio: bytes) -> bytes:
    """A frame that says what this audio says, with silence around it."""
    frame = bytearray(FRAME_BYTES)
    _SAMPLES.pack_into(frame, _AT, *(int(mulaw.DECODE[digit]) for digit in audio[:2]))
    return bytes(frame)


def heard(frame: bytes) -> int:
    """The number that a frame says; -1 if it says none."""
    high, low = sorted(_DIGIT.get(sample, -1) for sample in _SAMPLES.unpack_from(frame, _AT))
    return high * _BASE + low - _BASE if 0 <= high < _BASE <= low else -1
