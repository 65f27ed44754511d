"""Where speech begins and ends: the hysteresis that Silero puts on its probabilities."""

from enum import Enum

from bridge.local.whisper.start import SAMPLE_RATE, Vad

FRAME_SAMPLES = 512
"""Samples in a frame (32 ms): the only window Silero takes at 16 kHz, hence the wire's frame size."""
FRAME_BYTES = 2 * FRAME_SAMPLES
FRAME_MS = 1000 * FRAME_SAMPLES // SAMPLE_RATE

HYSTERESIS = 0.15
"""Silence counts only this far below the threshold (Silero's VADIterator)."""
FLOOR = 0.01
"""The least probability that still counts as silence, so that speech can end at any threshold (as in Silero)."""


class Edge(Enum):
    """What a frame did to the state of speech."""

    STARTED = "started"
    ENDED = "ended"


class Speech:
    """Whether somebody speaks, told frame by frame.

    Speech starts with a frame at or above the threshold. It ends once `min_silence_duration_ms` have
    passed after the first frame of silence; a frame at or above the threshold starts that count anew,
    a frame in between neither counts as silence nor ends it.
    """

    def __init__(self, vad: Vad) -> None:
        self._threshold = vad.threshold
        self._silence_below = max(vad.threshold - HYSTERESIS, FLOOR)
        self._min_silence_ms = vad.min_silence_duration_ms
        # Milliseconds since the first silent frame of a possible end; None while there is none.
        self._silent_ms: int | None = None
        self.speaking = False

    def push(self, probability: float) -> Edge | None:
        """Take the next frame's probability; tell if speech started or ended with it."""
        if self._silent_ms is not None:
            self._silent_ms += FRAME_MS
        if probability >= self._threshold:
            self._silent_ms = None
            if not self.speaking:
                self.speaking = True
                return Edge.STARTED
        elif self.speaking and probability < self._silence_below:
            if self._silent_ms is None:
                self._silent_ms = 0
            if self._silent_ms >= self._min_silence_ms:
                self.reset()
                return Edge.ENDED
        return None

    def reset(self) -> None:
        """Forget that anybody spoke."""
        self.speaking = False
        self._silent_ms = None
