"""The tick: one clock per process that turns the pending audio of all sessions into frames together.

A source says that it is `ready` when it has a whole frame; at the next multiple of `PERIOD_S` the tick
takes what every ready source may send, computes all those frames as one matrix, and hands each source its
own. Live audio and replay look the same to it. While nobody is ready it does not run at all.
"""

import asyncio
import time
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge import log, metrics
from bridge.audio.journal import Journal, Unreadable
from bridge.audio.upsample import FRAME, HISTORY, WINDOW, Upsampler

PERIOD_S: Final = 0.004
"""Seconds between ticks: adds 2 ms on average, and lets 100 calls share one matrix product."""

ROWS: Final = 16
"""Frames of one matrix product: the most that OpenBLAS still computes in the calling thread."""

BURST: Final = 8
"""Frames that one source may take in one tick, so that a replay does not delay live audio."""

_logger = log.get(__name__)


class Source(Protocol):
    """What a Whisper session shows to the tick."""

    journal: Journal
    cursor: int
    """Offset of the next byte to send."""

    def due(self, now: float) -> int | None:
        """How many whole frames may be sent now: 0 to be asked again, None for nothing until `ready`."""

    def send(self, frames: NDArray[np.int16], peak: int) -> None:
        """Send frames [n, 512], whose highest sample is `peak`; the source moves its cursor.

        The array is valid during the call only.
        """

    def unreadable(self, error: Unreadable) -> None:
        """The journal could not be read at the cursor; it will be tried again."""


class Tick:
    """Serves every `Source` of this process."""

    def __init__(self) -> None:
        self._upsampler = Upsampler(ROWS)
        self._ready: dict[Source, None] = {}  # a set that keeps its order
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def ready(self, source: Source) -> None:
        """Serve `source` at the next tick, and again until nothing is due."""
        self._ready[source] = None
        if self._timer is None:
            self._schedule()

    def forget(self, source: Source) -> None:
        """Serve `source` no more."""
        self._ready.pop(source, None)

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ready.clear()

    def _schedule(self) -> None:
        now = self._loop.time()
        self._timer = self._loop.call_at((now // PERIOD_S + 1) * PERIOD_S, self._run)

    def _run(self) -> None:
        self._timer = None
        began = time.perf_counter()  # the loop's clock stands still while it runs us
        now = self._loop.time()
        batch: list[tuple[Source, int]] = []
        rows = 0
        for source in list(self._ready):
            try:
                due = source.due(now)
            except Exception as defect:  # noqa: BLE001 - it must not starve the other sources
                self._failed(source, defect)
                continue
            if due is None:
                del self._ready[source]
            if due:
                due = min(due, BURST)
                if rows + due > ROWS:
                    self._flush(batch)
                    batch, rows = [], 0
                batch.append((source, due))
                rows += due
        if batch:
            self._flush(batch)
        if self._ready and self._timer is None:
            self._schedule()
        metrics.TICK_SECONDS.observe(time.perf_counter() - began)

    def _flush(self, batch: list[tuple[Source, int]]) -> None:
        read: list[tuple[Source, int]] = []
        rows = 0
        for source, due in batch:
            try:
                for row in range(due):
                    window = source.journal.read(source.cursor + row * FRAME - HISTORY, WINDOW)
                    self._upsampler.load(rows + row, window)
            except Unreadable as error:
                source.unreadable(error)
                continue
            read.append((source, due))
            rows += due
        frames = self._upsampler.run(rows)
        peaks = np.maximum.reduce(frames, axis=1).tolist()
        row = 0
        for source, due in read:
            try:
                source.send(frames[row : row + due], max(peaks[row : row + due]))
            except Exception as defect:  # noqa: BLE001 - as above
                self._failed(source, defect)
            row += due

    def _failed(self, source: Source, defect: Exception) -> None:
        """Serve a source with a defect no more."""
        metrics.DEFECTS.inc()
        _logger.error("tick_source_failed", exc_info=defect)
        self._ready.pop(source, None)
