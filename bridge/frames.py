"""WebSocket frames (RFC 6455, section 5.2), as far as the bridge makes or cuts them itself.

Nearly all frames are alike: text from Twilio, audio to Whisper. Those are dealt with here, for a fraction of what a
protocol costs that is ready for everything; everything else goes through websockets' protocol.
"""

import os
from collections.abc import Iterator
from typing import Final

from websockets.frames import Opcode

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its C extension
    from websockets.utils import apply_mask

AUDIO: Final = 1024
"""Bytes of audio in one frame to Whisper: 512 samples of 16 bits, which is what it takes at a time."""

LONGEST_HEAD: Final = 14
"""Bytes: two, a length of eight, and a mask of four."""

_FINAL: Final = 0x80
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_TEXT: Final = _FINAL | Opcode.TEXT
_LONG_TEXT: Final = bytes((_TEXT, _MASKED | 126))
_AUDIO_HEAD: Final = bytes((_FINAL | Opcode.BINARY, _MASKED | 126)) + AUDIO.to_bytes(2)


def audio(pcm: bytes) -> bytes:
    """A whole binary message of `AUDIO` bytes, masked, as a client sends it."""
    key = next(_KEYS)
    return _AUDIO_HEAD + key + apply_mask(pcm, key)


def span(data: bytes, begin: int) -> tuple[int, int]:
    """Where the payload begins and ends of the frame that begins at `begin`, with two bytes of it there at least.

    If its length is not known yet, the end lies behind what there is, and no later than it will.
    """
    length, body = data[begin + 1] & _LENGTH, begin + 2
    if length > 125:
        body += 2 if length == 126 else 8
        if body > len(data):
            return body, body
        length = int.from_bytes(data[begin + 2 : body])
    if data[begin + 1] & _MASKED:
        body += 4
    return body, body + length


def sole_text(data: bytes) -> bytes | None:
    """The payload of the one masked text frame of 126 to 65,535 bytes that `data` is; None if it is anything else.

    So Twilio's media come, nearly always.
    """
    if len(data) > 8 and data[:2] == _LONG_TEXT and len(data) == 8 + (data[2] << 8 | data[3]):
        return apply_mask(data[8:], data[4:8])
    return None


def text(data: bytes, begin: int, body: int, end: int) -> bytes | None:
    """The payload of a frame that is a whole text message; None if it is none."""
    if data[begin] != _TEXT:
        return None
    if data[begin + 1] & _MASKED:
        return apply_mask(data[body:end], data[body - 4 : body])
    return data[body:end]


def _random_keys() -> Iterator[bytes]:
    """Masks that nobody can foresee (section 5.3); a system call for each would cost more than the mask."""
    while True:
        block = os.urandom(4096)
        for at in range(0, len(block), 4):
            yield block[at : at + 4]


_KEYS: Final = _random_keys()
