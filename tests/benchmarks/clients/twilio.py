"""Twilio's end of the sockets: it writes messages, each in its turn."""

import asyncio
from itertools import cycle
from typing import Final, Self, cast

import aiohttp

from bridge.local.twilio import frame
from bridge.local.twilio.socket import MediaSocket
from tests.benchmarks.clients.workload import MESSAGES, Schedule, Turns
from tests.doubles.tls_proxy import trusting

_FRAMES: Final = tuple(frame.text(message) for message in MESSAGES)


class Twilio:
    """`async with Twilio(url, sockets)`: so many sockets to one contestant."""

    def __init__(self, url: str, sockets: int) -> None:
        self._url = url
        self._many = sockets
        self._sockets: list[MediaSocket] = []
        self._readers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        tls = trusting() if self._url.startswith("wss") else False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), ws_response_class=MediaSocket
        )
        try:
            opened = [await self._session.ws_connect(self._url, ssl=tls) for _ in range(self._many)]
        except BaseException:
            await self._session.close()
            raise
        self._sockets = [cast("MediaSocket", socket) for socket in opened]
        self._readers = [asyncio.create_task(_read(socket)) for socket in self._sockets]
        return self

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._session.close()

    async def play(self, turns: Turns, seconds: float) -> tuple[int, list[float]]:
        """Write for so long; returns how many messages that were, and how late each turn was, in seconds."""
        groups, frames, written = turns.groups(self._sockets), cycle(_FRAMES), 0
        schedule = Schedule(turns, seconds)
        async for turn in schedule:
            for socket, message in zip(groups[turn], frames, strict=False):
                socket.write(message)
            written += len(groups[turn])
        return written, schedule.late_s


async def _read(socket: MediaSocket) -> None:
    """Answer pings until it is closed."""
    async for _ in socket:
        pass
