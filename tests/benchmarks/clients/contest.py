"""A contestant at work for a moment: what that cost, and whether it did what it had to."""

import asyncio
import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Final

from bridge.errors import BridgeError
from tests.benchmarks.child import Child
from tests.benchmarks.clients.contestant import NOTHING
from tests.benchmarks.clients.twilio import Twilio
from tests.benchmarks.clients.whisper import Whisper
from tests.benchmarks.clients.workload import FRAMES, MESSAGES, expected, spread

PATIENCE_S: Final = 5.0
"""How long a frame may be under way."""


@dataclass(eq=False)
class Contestant(ABC):
    """One way, with or without TLS, as a process whose sockets are open."""

    loads: ClassVar[tuple[str, ...]]
    """What it can be asked to do."""

    name: str
    tls: bool
    child: Child
    late_s: list[float] = field(default_factory=list, init=False)
    """How late each turn was, of all that was done."""

    async def cost_us(self, load: str, seconds: float) -> float:
        """Work for so long; returns processor time, user and system, for each frame or message. Raises `BridgeError`."""
        before_s = self.child.cpu_s
        done = await self._work(load, seconds)
        used_s = self.child.cpu_s - before_s
        if not done.right:
            raise BridgeError(f"{self.name}, {load}: not everything has arrived, or not as it was sent")
        self.late_s += done.late_s
        return used_s * 1e6 / done.many

    @abstractmethod
    async def _work(self, load: str, seconds: float) -> "Done":
        """Do it, and return when it is done."""


@dataclass(frozen=True, slots=True)
class Done:
    """What was done."""

    many: int
    """Frames or messages."""
    right: bool
    """Whether all of them have arrived, as they were."""
    late_s: list[float]


@dataclass(eq=False)
class Sender(Contestant):
    """One who sends to Whisper."""

    loads = ("grouped", "lone")

    whisper: Whisper = field(kw_only=True)

    async def _work(self, load: str, seconds: float) -> Done:
        heard = self.whisper.heard
        heard.clear()
        told = json.loads(await self.child.ask(f"{load} {seconds}"))
        sent = told["sent"]
        until = time.monotonic() + PATIENCE_S
        while self.name != NOTHING and heard.total() < sent and time.monotonic() < until:
            await asyncio.sleep(0.002)
        return Done(sent, self.name == NOTHING or heard == expected(FRAMES, sent), told["late_s"])


@dataclass(eq=False)
class Receiver(Contestant):
    """One who receives from Twilio."""

    loads = ("spread",)

    twilio: Twilio = field(kw_only=True)

    async def _work(self, load: str, seconds: float) -> Done:
        assert load == "spread"
        written, late_s = await self.twilio.play(spread(), seconds)
        told = json.loads(await self.child.ask(str(written)))
        counts = expected(MESSAGES, written)
        right = not told["strange"] and told["taken"] == [counts[message] for message in MESSAGES]
        return Done(written, right, late_s)
