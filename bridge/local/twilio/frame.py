"""A client's WebSocket frames (RFC 6455, section 5.2), in pieces that can be kept: the mask is always the same."""

import os
from typing import Final

from websockets.frames import apply_mask  # type: ignore[attr-defined]  # compiled where it can be

MASK: Final = os.urandom(4)
"""One for the process: no proxy lies between that could be deceived."""

_TEXT: Final = 0x81  # a whole message
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126  # the length follows in two bytes, from here on


def text(message: str) -> bytes:
    """A text message of less than 64 KiB."""
    payload = message.encode()
    return head(len(payload)) + apply_mask(payload, MASK)


def head(size: int) -> bytes:
    """What goes before the masked payload of a text message of `size` bytes."""
    if size < _TWO_BYTES:
        return bytes((_TEXT, _MASKED | size)) + MASK
    return bytes((_TEXT, _MASKED | _TWO_BYTES)) + size.to_bytes(2) + MASK


def masked(part: str, after: int = 0) -> bytes:
    """A part of a payload that follows after so many bytes of it."""
    begin = after % 4
    return apply_mask(part.encode(), MASK[begin:] + MASK[:begin])
