"""Listens to what no server said anything about: one thread of this process, so that sockets and calls never wait.

The detector holds the interpreter while it works on a frame. So the thread rests after each one: it takes half a
processor at most, and whatever else is due waits a fraction of a millisecond.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from bridge import log, metrics
from bridge.audio import voice
from bridge.audio.voice import Probability, Stretches

REST_S: Final = 0.0001
"""After each frame, about as long as it took: some 100 s of audio are heard in one second."""

Listen = Callable[[bytes], Awaitable[Stretches]]
"""Where somebody speaks in mu-law audio of two minutes at most."""

_logger = log.get(__name__)


class Ear:
    """Of this process: hears one stretch of audio after the other. `close` ends it."""

    def __init__(self, detector: Callable[[], Probability] = voice.load) -> None:
        self._detector = detector
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ear")
        self._closed = threading.Event()

    async def listen(self, audio: bytes) -> Stretches:
        """Where somebody speaks in mu-law audio. See `Listen`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._listen, audio)

    def close(self) -> None:
        """Hear no more; what was asked and not answered is cancelled, or cut short."""
        self._closed.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _listen(self, audio: bytes) -> Stretches:
        try:
            return voice.stretches(self._probabilities(audio), len(audio))
        except Exception as defect:  # without the detector everything may be speech
            metrics.DEFECTS.inc()
            _logger.error("ear_failed", exc_info=defect)
            return [(0, len(audio))]

    def _probabilities(self, audio: bytes) -> Iterator[float]:
        probability = self._detector()  # a new one for each stretch: they have nothing to do with each other
        for frame in voice.frames(audio):
            if self._closed.is_set():
                return
            yield probability(frame)
            time.sleep(REST_S)
