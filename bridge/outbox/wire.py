"""What a worker and the host of its outbox send each other: requests and answers, each in one frame.

A frame is its length (4 bytes, big-endian) and MessagePack: `[number, method, [argument, ...]]` for a request,
`[number, error, value]` for an answer. Answers come in any order. `error` is the name of a class and `value` its
sentence; without an error it is empty, and `value` the result. The types are those of the `Outbox` protocol itself.
"""

import inspect
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from bridge.errors import BridgeError, ConfigError
from bridge.outbox.lease import Erased, Fenced
from bridge.outbox.outbox import Outbox, OutboxDown, OutboxFull, OutboxHeld

LONGEST = 64 * 1024 * 1024
"""Bytes of a frame. The longest that the bridge sends is the end of a call of many hours, some MB."""

ERRORS: Mapping[str, type[Exception]] = {
    error.__name__: error
    for error in (BridgeError, ConfigError, Erased, Fenced, OutboxDown, OutboxFull, OutboxHeld, ValueError)
}
"""What comes back as itself."""

_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the outbox."""

    arguments: type[msgspec.Struct]
    """Its parameters: made like a call."""
    asked: msgspec.msgpack.Decoder[Any]
    """Reads the arguments."""
    answered: msgspec.msgpack.Decoder[Any]
    """Reads the result."""


def _method(name: str) -> Method:
    function = getattr(Outbox, name)
    hints = get_type_hints(function)
    fields = [
        (parameter.name, hints[parameter.name])
        if parameter.default is parameter.empty
        else (parameter.name, hints[parameter.name], parameter.default)
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    ]
    arguments = msgspec.defstruct(name, fields, array_like=True)
    return Method(arguments, msgspec.msgpack.Decoder(arguments), msgspec.msgpack.Decoder(hints["return"]))


METHODS: Mapping[str, Method] = {
    name: _method(name)
    for name, _ in inspect.getmembers(Outbox, inspect.iscoroutinefunction)
    if name not in {"open", "close"}  # who hosts it has opened it
}


def _plain(value: object) -> object:
    """What MessagePack has for a collection of a kind that it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_envelope = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])


def frame(number: int, what: str, value: object) -> bytes:
    """A request for the method `what`, or an answer with the error `what`. Raises `ValueError` if it is too long."""
    body = _encoder.encode((number, what, value))
    if len(body) > LONGEST:
        raise ValueError(
            f"{len(body)} bytes are too many for the outbox of several workers: {LONGEST} are allowed."
        )
    return _LENGTH.pack(len(body)) + body


def unpacked(body: bytes) -> tuple[int, str, msgspec.Raw]:
    """What a frame has. Raises `ValueError`."""
    return _envelope.decode(body)


class Frames:
    """Cuts a stream into the bodies of its frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def cut(self, data: bytes) -> list[bytes]:
        """Those that are whole now. Raises `ValueError` for a frame that is too long: the stream is of no use then."""
        rest, bodies, at = self._rest, [], 0
        rest += data
        while len(rest) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(rest, at)
            if length > LONGEST:
                raise ValueError(f"A frame of {length} bytes is too long.")
            begin = at + _LENGTH.size
            if len(rest) < begin + length:
                break
            at = begin + length
            bodies.append(bytes(rest[begin:at]))
        del rest[:at]
        return bodies
