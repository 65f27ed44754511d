"""Partial transcripts: sent at once or never. Not stored, not ordered, not retried.

Each (endpoint, call, track) has one slot with the latest partial and at most one POST under way, over
connections of its own, so that stored events never wait for a partial.
"""

import asyncio
import base64
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from bridge import metrics
from bridge.webhook.sender import Secrets, Sender
from bridge.webhook.target import Targets

SLOTS = 256
"""Tracks whose partials are under way at a time; a partial beyond it is dropped, as a newer one will come."""

TOTAL_S = 2.0
"""A partial that takes longer to deliver is worth nothing any more."""

Key = tuple[str, str, str]


@dataclass(slots=True)
class _Slot:
    body: bytes | None
    task: asyncio.Task[None] | None = None


class Partials:
    """Sends the latest partial of each track. `start` before the first `offer`, `close` at the end."""

    def __init__(
        self,
        secrets: Secrets,
        targets: Targets,
        *,
        clock: Callable[[], float] = time.time,
        slots: int = SLOTS,
    ) -> None:
        self._sender = Sender(secrets, targets, clock=clock, total_s=TOTAL_S)
        self._most = slots
        self._slots: dict[Key, _Slot] = {}
        self._open = False

    async def start(self) -> None:
        """Make the connections' pool."""
        await self._sender.start()
        self._open = True

    async def close(self) -> None:
        """Drop what is left, and what is under way."""
        self._open = False
        tasks = [slot.task for slot in self._slots.values() if slot.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def offer(self, endpoint: str, call_sid: str, track: str, body: bytes) -> None:
        """Send `body` as soon as the slot's last one is answered, unless a newer one replaces it first."""
        if not self._open:
            return
        key = (endpoint, call_sid, track)
        slot = self._slots.get(key)
        if slot is not None:
            if slot.body is not None:
                metrics.PARTIALS.labels("replaced").inc()
            slot.body = body
        elif len(self._slots) >= self._most:
            metrics.PARTIALS.labels("dropped").inc()
        else:
            slot = self._slots[key] = _Slot(body)
            slot.task = asyncio.create_task(self._work(key, slot))

    def drop(self, endpoint: str, call_sid: str, track: str) -> None:
        """Forget what waits for the track: its final is published, or its call is over."""
        slot = self._slots.get((endpoint, call_sid, track))
        if slot is not None and slot.body is not None:
            metrics.PARTIALS.labels("dropped").inc()
            slot.body = None

    async def _work(self, key: Key, slot: _Slot) -> None:
        try:
            while slot.body is not None:
                body, slot.body = slot.body, None
                outcome = await self._sender.post(key[0], _fresh_id(), body)
                metrics.PARTIALS.labels("sent" if outcome.accepted else "failed").inc()
        finally:
            del self._slots[key]


def _fresh_id() -> str:
    return "evt_" + base64.b32encode(os.urandom(20)).decode().lower()[:26]
