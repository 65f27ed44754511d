"""Both ends behind a bridge on this machine, for a load: the Whisper server and the webhooks' endpoint of its configuration."""

import asyncio
import time
from array import array
from collections.abc import Mapping, MutableSequence, Sequence
from contextlib import AsyncExitStack
from typing import Final, Self
from urllib.parse import urlsplit

import numpy as np

from bridge.config import Config
from bridge.errors import UsageError
from bridge.local.load import delay, tag
from bridge.local.load.ledger import Ledger
from bridge.local.load.sink import Sink
from bridge.local.receiver import Received, Receiver
from bridge.local.twilio import CallReport, Track
from bridge.local.twilio.address import is_loopback

SETTLE_S: Final = 30.0
"""How long webhooks may come after the last call."""

AGAIN_S: Final = 0.05

SETTLED_S: Final = 0.4
"""How long after the last call's first message the others have settled again."""

TAGGED: Final = 10
"""Media messages at the beginning of a track that say which it is: 0.2 s instead of what was recorded."""

TRACKS: Final[Sequence[Track]] = ("inbound", "outbound")


class Ends:
    """Open while there are calls, and until their webhooks have come: `async with Ends(config, calls) as ends`.

    Raises UsageError for a configuration that names other machines, BridgeError where a port cannot be had.
    """

    def __init__(self, config: Config, calls: Sequence[CallReport]) -> None:
        whisper, webhook = config.whisper.url, config.webhook.url
        plain = whisper.startswith("ws://") and webhook.startswith("http://")
        if not (plain and is_loopback(whisper) and is_loopback(webhook)):
            raise UsageError(
                "--local needs a configuration whose ends are on this machine: whisper.url such as "
                "ws://127.0.0.1:9090/websocket, and webhook.url such as http://127.0.0.1:9091/."
            )
        secrets = [secret.get_secret_value() for secret in config.webhook.secret]
        self.ledger = Ledger(call.call_sid for call in calls)
        self._calls = calls
        self._wall = time.time() - time.monotonic()
        self._came: dict[int, MutableSequence[float]] = {}
        self._sink = Sink(urlsplit(whisper).port or 80)
        self._receiver = Receiver(secrets, port=urlsplit(webhook).port or 80, on_event=self._posted)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._sink)
            await stack.enter_async_context(self._receiver)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def settle(self) -> None:
        """Wait until everything has come that should, for `SETTLE_S` at most."""
        for call in self._calls:
            if not call.frames_sent:
                self.ledger.excuse(call.call_sid)
        until = time.monotonic() + SETTLE_S
        self._take()
        while not self.ledger.complete and time.monotonic() < until:
            await asyncio.sleep(AGAIN_S)
            self._take()

    def delays(self) -> dict[str, object]:
        """How late the audio was at Whisper, of all tracks that came there; and while no call began or ended."""
        now = time.monotonic()
        lines = [
            (np.array(call.sent) - self._wall, self._came[number])
            for n, call in enumerate(self._calls)
            for number in _numbers(n).values()
            if number in self._came and call.sent
        ]
        begun = max((sent[0] for sent, _ in lines), default=0.0) + SETTLED_S
        over = min((sent[-1] for sent, _ in lines), default=0.0)
        service = _joined([delay.service(sent, came, now) for sent, came in lines])
        raw = _joined([delay.raw(sent, came, now) for sent, came in lines])
        return {
            "tracks": len(lines),
            "delay_ms": delay.spread(service[1]),
            "raw_delay_ms": delay.spread(raw[1]),
            "steady_s": round(max(0.0, float(over - begun)), 3),
            "steady_delay_ms": delay.spread(service[1][(service[0] >= begun) & (service[0] < over)]),
            "steady_raw_delay_ms": delay.spread(raw[1][(raw[0] >= begun) & (raw[0] < over)]),
        }

    def _take(self) -> None:
        noted = self._sink.take()
        self.ledger.said(noted.finals)
        for number, came in noted.came.items():
            self._came.setdefault(number, array("d")).extend(came)

    def _posted(self, webhook: Received) -> None:
        self._receiver.received.clear()
        self.ledger.received(webhook, webhook.received_at - self._wall)


def tagged(audio: Mapping[Track, bytes], number: int) -> dict[Track, bytes]:
    """This audio as call `number` plays it: the first 0.2 s of each track say which it is."""
    length = max(map(len, audio.values()), default=0)
    told = {track: tag.spoken(line) * TAGGED for track, line in _numbers(number).items()}
    return {
        track: (first + audio.get(track, b"")[len(first) :])[: max(length, len(first))]
        for track, first in told.items()
    }


def _joined(lines: Sequence[tuple[delay.Times, delay.Times]]) -> tuple[delay.Times, delay.Times]:
    """When, and how late, of all lines together."""
    return np.concatenate([[], *(at for at, _ in lines)]), np.concatenate([[], *(late for _, late in lines)])


def _numbers(call: int) -> dict[Track, int]:
    return {track: len(TRACKS) * call + which for which, track in enumerate(TRACKS)}
