"""Whatever can go wrong with a Whisper server, by chance: the same seed, the same troubles for connection n."""

import asyncio
from dataclasses import dataclass
from random import Random
from typing import Final

from websockets.asyncio.server import ServerConnection

from tests.doubles.numbered import Connection, NumberedWhisper, reset, stop_reading, zombie

BREAKS: Final = ("reset", "before a final", "1012", "1011", "stop reading", "zombie", "mute")


@dataclass
class Troubles:
    """Afflicts a server. Seconds are seconds of audio, unless it is said otherwise."""

    seed: int
    life_s: float = 8.0
    """How much audio a socket takes on average before it breaks."""
    refused: float = 0.2
    """The share of connects that are refused."""
    cold: float = 0.25
    """The share of those that are taken, but after up to `cold_s` seconds of the clock."""
    cold_s: float = 0.4
    breaks: tuple[str, ...] = BREAKS
    over: bool = False
    """Nothing more goes wrong."""

    def afflict(self, server: NumberedWhisper) -> None:
        """From now on."""
        chance = Random(self.seed)
        for _ in range(2000):
            refused = chance.random() < self.refused
            server.refuse.append(chance.choice((500, 503, 429)) if refused else 0)
            server.delay_s.append(chance.uniform(0, self.cold_s) if chance.random() < self.cold else 0.0)
        server.fault = self._fault
        server.before_final = self._before_final

    def _fate(self, number: int) -> tuple[float, str]:
        """When a connection breaks, and how."""
        chance = Random(f"{self.seed}/{number}")
        return chance.expovariate(1 / self.life_s), chance.choice(self.breaks)

    async def _fault(self, number: int, connection: Connection, socket: ServerConnection) -> None:
        at_s, how = self._fate(number)
        if self.over or connection.heard_s < at_s:
            return
        match how:
            case "reset":
                await reset(socket)
            case "stop reading":
                await stop_reading(socket)
            case "zombie":
                await zombie(socket)
            case "mute":
                connection.mute = connection.deaf = True
            case "1011" | "1012":
                await socket.close(int(how))

    async def _before_final(self, number: int, connection: Connection, socket: ServerConnection) -> None:
        at_s, how = self._fate(number)
        if not self.over and how == "before a final" and connection.heard_s >= at_s:
            await reset(socket)
            await asyncio.sleep(0)
