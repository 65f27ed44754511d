"""What every contestant does: so many sockets, which take their turns on an absolute schedule."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final, TypeVar

from bridge.local.twilio.message import Writer
from bridge.local.twilio.script import FRAME_BYTES, FRAME_MS

_DIFFERENT: Final = 64
"""Frames and messages that are not alike, so that none can take another's place."""

_random = random.Random(6)

FRAMES: Final = tuple(_random.randbytes(1024) for _ in range(_DIFFERENT))
"""What is sent to Whisper: 512 samples at a time."""


def _messages() -> tuple[str, ...]:
    writer = Writer("AC" + "a" * 32, "CA" + "c" * 32, "MZ" + "d" * 32)
    return tuple(
        writer.media("inbound", 60_000 + turn * FRAME_MS, _random.randbytes(FRAME_BYTES))
        for turn in range(_DIFFERENT)
    )


MESSAGES: Final = _messages()
"""What Twilio sends: about 350 bytes of text."""

_S = TypeVar("_S")


@dataclass(frozen=True, slots=True)
class Turns:
    """All sockets have their turn within `many` turns, one every `interval_s`."""

    many: int
    interval_s: float

    def groups(self, sockets: Sequence[_S]) -> list[Sequence[_S]]:
        """The sockets of each turn."""
        return [sockets[turn :: self.many] for turn in range(self.many)]


def grouped() -> Turns:
    """As the bridge's tick sends: every 4 ms an eighth of the sockets, each one every 32 ms."""
    return Turns(8, 0.004)


def lone(sockets: int) -> Turns:
    """One send at a time, each a turn of the event loop of its own. 1 ms is the least that uvloop can wait."""
    return Turns(sockets, 0.001)


def spread() -> Turns:
    """As Twilio sends: every socket every 20 ms, and calls do not wait for one another."""
    return Turns(20, 0.001)


class Schedule:
    """`async for turn in Schedule(...)`: 0, 1, 2 ... each when it is due, for `seconds`."""

    def __init__(self, turns: Turns, seconds: float) -> None:
        self.late_s: list[float] = []
        """How late each turn was."""
        self._turns = turns
        self._count = max(turns.many, round(seconds / turns.interval_s))

    async def __aiter__(self) -> AsyncIterator[int]:
        begun = time.monotonic()
        for turn in range(self._count):
            due = begun + turn * self._turns.interval_s
            # A turn that is overdue still is one of its own.
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.late_s.append(max(0.0, time.monotonic() - due))
            yield turn % self._turns.many


def expected(given: Sequence[_S], many: int) -> Counter[_S]:
    """What must have arrived after so many were taken in turn."""
    return Counter(islice(cycle(given), many))
