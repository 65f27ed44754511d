"""Writes down what the sockets of one session hear: every word once, in the order of time, stored before it counts."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bridge.audio import mulaw
from bridge.audio.journal import Journal
from bridge.transcript.heard import Heard, fresh, place
from bridge.transcript.published import Published
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.hold import ONSET, SPOKEN, Hold
from bridge.whisper.patience import Patience
from bridge.whisper.protocol import Transcription
from bridge.whisper.watermark import Watermark

MARGIN: Final = mulaw.SAMPLE_RATE
"""Samples kept before the watermark: the filter's memory, and word times that are a little off."""

UNTIMED_LAG: Final = 8 * mulaw.SAMPLE_RATE
"""How far behind the audio the finals of a server may be that does not say where they lie."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom a session tells."""

    final: Callable[[Heard, int], Awaitable[None]]
    """A final and the watermark that it makes; returns once both are stored."""
    partial: Callable[[Heard], None]
    lost: Callable[[int, int, str], None]
    """Audio between two offsets was given up, and why."""


class Scribe:
    """Of one session. Its methods are called one at a time, by whoever reads the present socket."""

    def __init__(
        self, journal: Journal, watermark: Watermark, listener: Listener, last_text: str = ""
    ) -> None:
        self.patience = Patience()
        self.storing = False
        """A final is on its way to the outbox."""
        self._journal = journal
        self._watermark = watermark
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._endpoint: Endpoint | None = None
        self._base = 0
        self._published = Published()
        self._hold = Hold()
        self._last_text = last_text
        self._latest = 0  # the latest final of this socket begins here

    @property
    def busy(self) -> bool:
        """Whether something that was heard is not stored yet: nothing may count as settled that is not."""
        return self.storing or len(self._hold) > 0

    @property
    def has_written(self) -> bool:
        """Whether anything was ever heard, by this process or an earlier one."""
        return bool(self._last_text)

    def begin(self, endpoint: Endpoint, base: int, *, again: bool) -> None:
        """A new socket is sent the audio from `base`; `again`: an earlier one had been sent it."""
        self._endpoint = endpoint
        self._base = self._latest = base
        self._published = Published(self._watermark.offset, self._last_text if again else "")
        self._hold = Hold()  # what waited is said again
        self.patience.restart()

    async def hear(self, said: Transcription, limit: int) -> None:
        """The server said something about the audio before `limit`."""
        heard = place(
            said, base=self._base, published=self._published, default=self._untimed(limit), limit=limit
        )
        if heard is None:
            return
        now = self._loop.time()
        if not said.is_final:
            self.patience.partial(now)
            self._listener.partial(heard)
            return
        self.patience.final(heard.end, now)
        again = said.number is None and not heard.timed and heard.text == self._last_text
        if again and not self._watermark.spoken:
            return  # said again: since the first time there was nothing that this could have been heard in
        if heard.end <= self._latest and self._endpoint is not None:
            self._endpoint.reordered()
        self._latest = max(self._latest, heard.start)
        self._hold.add(heard, now)
        await self.publish()

    async def publish(self, *, all_: bool = False) -> None:
        """Publish what does not wait any longer; `all_`: the server has said everything."""
        misses = self._nothing if all_ else self._misses
        while (ready := self._hold.next(self._loop.time(), misses)) is not None:
            waited, in_vain = ready
            if in_vain and self._endpoint is not None:
                self._endpoint.waited_in_vain()
            if (heard := fresh(waited, self._published)) is not None:
                await self._store(heard)

    async def _store(self, heard: Heard) -> None:
        self.storing = True
        await self._listener.final(heard, max(self._watermark.offset, heard.end))
        self.storing = False
        self._published.add(heard)
        self._last_text = heard.text
        self._watermark.finalised(heard.end)
        self._journal.release(self._watermark.offset - MARGIN)

    def _misses(self, heard: Heard) -> bool:
        """Whether somebody may have spoken before this final and after the last one."""
        if self._endpoint is not None and self._endpoint.keeps_order:
            return False
        return self._watermark.loud(heard.start - ONSET) >= SPOKEN

    @staticmethod
    def _nothing(_: Heard) -> bool:
        return False

    def _untimed(self, limit: int) -> tuple[int, int]:
        """Where a final lies of which the server does not say it."""
        begin = self._watermark.offset
        start, end = self._watermark.utterance(limit - UNTIMED_LAG) or (begin, begin)
        return max(begin, start), end
