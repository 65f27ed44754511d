"""Twilio's end of one media WebSocket. What is due is written at once, without a wait for each message."""

import asyncio
import os
from typing import Any, Final

import aiohttp
from websockets.frames import apply_mask  # type: ignore[attr-defined]  # compiled where it can be

WRITE_BUFFER: Final = 64 * 1024
"""Bytes that may wait here for a bridge that does not read; the kernel holds more."""

_TEXT: Final = 0x81  # a whole message (RFC 6455, section 5.2)
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126  # the length follows in two bytes, from here on


class MediaSocket(aiohttp.ClientWebSocketResponse):
    """An open WebSocket as aiohttp has it; `write` is what many calls at a time need.

    aiohttp's own sending of one message, and the timeout around it, cost more than writing it to the network.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._mask = os.urandom(4)  # one for the socket: no proxy lies between that could be deceived

    @property
    def clogged(self) -> bool:
        """Whether the bridge reads too slowly for more."""
        return self._transport.get_write_buffer_size() > WRITE_BUFFER

    def write(self, *texts: str) -> None:
        """Write these messages, in one piece. Raises ConnectionError on a socket that is closed."""
        if self.closed or self._transport.is_closing():
            raise ConnectionResetError("the media socket is closed")
        self._transport.write(b"".join([frame(text, self._mask) for text in texts]))

    @property
    def _transport(self) -> asyncio.Transport:
        return self._writer.transport


def frame(text: str, mask: bytes) -> bytes:
    """A text message of less than 64 KiB as a client sends it, masked with these four bytes."""
    payload = text.encode()
    size = len(payload)
    if size < _TWO_BYTES:
        head = bytes((_TEXT, _MASKED | size))
    else:
        head = bytes((_TEXT, _MASKED | _TWO_BYTES)) + size.to_bytes(2)
    return head + mask + apply_mask(payload, mask)
