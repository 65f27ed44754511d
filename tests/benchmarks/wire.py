"""WebSocket frames, cheaply: what a server at the end of the benchmark needs, and no more."""

from enum import IntEnum


class Opcode(IntEnum):
    """RFC 6455, section 5.2."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """One whole message of less than 64 kB, as a server sends it."""
    size = len(payload)
    length = bytes([size]) if size < 126 else bytes([126]) + size.to_bytes(2)
    return bytes([0x80 | opcode]) + length + payload


def masked(payload: bytes, key: bytes) -> bytes:
    """The payload with a mask put on, or taken off again; an empty key is none."""
    if not key:
        return payload
    stretched = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(stretched)).to_bytes(len(payload))


class Frames:
    """Cuts a connection's bytes into frames. Continuations are not joined: nobody here sends any."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[int, bytes, bytes]]:
        """The frames that are whole by now: opcode, payload as it came, and its mask (empty: none)."""
        if self._rest:
            data = self._rest + data
        found = []
        at = 0
        while len(data) >= at + 2:
            opcode, length, body = data[at] & 15, data[at + 1] & 127, at + 2
            if length > 125:
                size = 2 if length == 126 else 8
                length, body = int.from_bytes(data[body : body + size]), body + size
            key = data[body : body + 4] if data[at + 1] & 128 else b""
            body += len(key)
            if len(data) < body + length:
                break
            at = body + length
            found.append((opcode, data[body:at], key))
        self._rest = data[at:]
        return found
