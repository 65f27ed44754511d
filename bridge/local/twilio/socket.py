"""Twilio's end of one media WebSocket. What is due is written at once, without a wait for each message."""

import os
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from asyncio import Transport

WRITE_BUFFER: Final = 64 * 1024
"""Bytes that may wait here for a bridge that does not read; the kernel holds more."""


class MediaSocket(aiohttp.ClientWebSocketResponse):
    """An open WebSocket as aiohttp has it; `write` is what many calls at a time need.

    aiohttp's own sending of one message, and the timeout around it, cost more than writing it to the network.
    """

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._transport: Transport = self._writer.transport
        # Past the transport, which takes a third of the time, where nothing waits in it and nothing is encrypted.
        plain = os.name == "posix" and self._transport.get_extra_info("ssl_object") is None
        self._fileno: int | None = self._transport.get_extra_info("socket").fileno() if plain else None

    @property
    def clogged(self) -> bool:
        """Whether the bridge reads too slowly for more."""
        return self._transport.get_write_buffer_size() > WRITE_BUFFER

    def write(self, frames: bytes) -> None:
        """Write these frames, in one piece. Raises ConnectionError on a socket that is closed."""
        transport = self._transport
        if self._closed or transport.is_closing():
            raise ConnectionResetError("the media socket is closed")
        if self._fileno is not None and not transport.get_write_buffer_size():
            try:
                written = os.write(self._fileno, frames)
            except BlockingIOError:
                written = 0
            if written == len(frames):
                return
            frames = frames[written:]
        transport.write(frames)
