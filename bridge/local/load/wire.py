"""WebSocket frames, cheaply: what a server at the end of a load needs, and no more."""

from enum import IntEnum

from websockets.utils import accept_key


class Opcode(IntEnum):
    """RFC 6455, section 5.2."""

    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


def accepted(request: str) -> bytes:
    """The answer that opens a socket, to a request without its last, empty line."""
    fields = dict(line.split(": ", 1) for line in request.split("\r\n")[1:])
    key = {name.lower(): value for name, value in fields.items()}["sec-websocket-key"]
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_key(key).encode() + b"\r\n\r\n"
    )


def frame(opcode: Opcode, payload: bytes) -> bytes:
    """One whole message of less than 64 kB, as a server sends it."""
    return head(opcode, len(payload)) + payload


def head(opcode: Opcode, size: int, *, masked: bool = False) -> bytes:
    """The bytes before such a message's mask and payload."""
    mask = 0x80 if masked else 0
    length = bytes([mask | size]) if size < 126 else bytes([mask | 126]) + size.to_bytes(2)
    return bytes([0x80 | opcode]) + length


def masked(payload: bytes, key: bytes) -> bytes:
    """The payload with a mask put on, or taken off again; an empty key is none."""
    if not key:
        return payload
    stretched = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(stretched)).to_bytes(len(payload))


class Frames:
    """Cuts a connection's bytes into frames. Continuations are not joined: nobody here sends any."""

    def __init__(self) -> None:
        self.rest = b""
        """The beginning of a frame that is not whole yet."""

    def feed(self, data: bytes) -> list[tuple[int, bytes, bytes]]:
        """The frames that are whole by now: opcode, payload as it came, and its mask (empty: none)."""
        if self.rest:
            data = self.rest + data
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
        self.rest = data[at:]
        return found
