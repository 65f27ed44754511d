"""What goes between the server and a recogniser process: length-prefixed frames over its stdin and stdout."""

import struct
from enum import IntEnum

import msgspec

from bridge.local.whisper.engine import Recognition

HEADER = struct.Struct("<BII")
"""Kind, utterance, bytes of payload that follow."""


class Ask(IntEnum):
    """What a process is asked."""

    OPEN = 0
    """Begin an utterance on a free decoder."""
    AUDIO = 1
    """Decode this: s16le, 16 kHz, mono."""
    PARTIAL = 2
    """Answer with what is understood so far."""
    FINAL = 3
    """End the utterance and answer with what was said."""
    DROP = 4
    """End the utterance; nobody wants to know."""


class Tell(IntEnum):
    """What a process answers."""

    READY = 0
    """Every decoder is loaded."""
    BROKEN = 1
    """The decoders cannot be loaded; the payload says why. The process exits."""
    PARTIAL = 2
    FINAL = 3


def pack(kind: int, utterance: int = 0, payload: bytes = b"") -> bytes:
    """A frame as bytes."""
    return HEADER.pack(kind, utterance, len(payload)) + payload


encode_recognition = msgspec.msgpack.Encoder().encode
decode_recognition = msgspec.msgpack.Decoder(Recognition).decode
