"""Many calls at a time, one after the other begun, and what was seen meanwhile."""

import asyncio
import gc
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from bridge.local.load import delay
from bridge.local.load.ends import Ends
from bridge.local.load.watch import Watch
from bridge.local.twilio import CallReport, Lateness, SimulatedCall
from bridge.local.twilio.script import FRAME_MS

MINUTE_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class Played:
    """What came of the calls."""

    reports: Sequence[CallReport]
    lateness: Lateness
    setup_ms: delay.Spread | None
    """From when the telephone rang until its first media message was sent."""
    bridge: dict[str, object] | None
    """What its processes used, where they were named."""
    audio: dict[str, object] | None
    webhooks: dict[str, object] | None
    """What came to both ends, where they were here."""
    webhook_problem: str = ""

    @property
    def failed(self) -> Sequence[CallReport]:
        """Calls that the bridge did not take from beginning to end."""
        return [report for report in self.reports if not report.ok]

    def as_json(self) -> dict[str, object]:
        """For programs: `simulate --report json`."""
        measured = {"bridge": self.bridge, "audio": self.audio, "webhooks": self.webhooks}
        return {
            "ok": len(self.reports) - len(self.failed),
            "failed": len(self.failed),
            "lateness_ms": self.lateness.as_json(),
            "void": self.lateness.void,
            "setup_ms": self.setup_ms,
            **{name: figures for name, figures in measured.items() if figures is not None},
            "calls": [report.as_json() for report in self.reports],
        }


async def play(
    calls: Sequence[SimulatedCall], stagger_s: float, *, pids: Sequence[int] = (), ends: Ends | None = None
) -> Played:
    """Make these calls, the next `stagger_s` seconds after the one before.

    `pids` are the processes of the bridge, and `ends` are what is behind it. Raises UsageError for a process that
    cannot be seen, and what `ends` raises.
    """
    rang: list[float] = []

    async def one(number: int, call: SimulatedCall) -> CallReport:
        await asyncio.sleep(number * stagger_s)
        rang.append(time.time())
        return await call.run()

    def live() -> int:
        return sum(call.status == "in-progress" for call in calls)

    async with AsyncExitStack() as stack:
        gc.collect()
        gc.freeze()  # going through all that was imported, again and again, would be late audio
        stack.callback(gc.unfreeze)
        if ends:
            await stack.enter_async_context(ends)
        watch = await stack.enter_async_context(Watch(pids, live)) if pids else None
        reports = await asyncio.gather(*(one(number, call) for number, call in enumerate(calls)))
        if ends:
            await ends.settle()
    played_ms = FRAME_MS * sum(len(report.sent) for report in reports)
    setup = [report.sent[0] - at for at, report in zip(rang, reports, strict=True) if report.sent]
    return Played(
        reports=reports,
        lateness=Lateness.of_all(reports),
        setup_ms=delay.spread(np.array(setup)),
        bridge=watch.figures(played_ms / MINUTE_MS) if watch else None,
        audio=ends.delays() if ends else None,
        webhooks=ends.ledger.figures() if ends else None,
        webhook_problem=ends.ledger.problem if ends else "",
    )
