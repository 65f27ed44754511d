"""Cuts a socket's audio into utterances, frame by frame. Positions are samples of this socket's audio."""

from collections import deque
from dataclasses import dataclass

from bridge.audio.voice import Probability
from bridge.local.whisper.start import SAMPLE_RATE, Start
from bridge.local.whisper.vad import FRAME_MS, FRAME_SAMPLES, Edge, Speech

LEAD_IN_MS = 250
"""Audio before the detected start that the recogniser also gets: Silero needs a few 32 ms windows to be sure,
and weak first sounds (h, f, th) stay below its threshold for 100 to 200 ms. `speech_pad_ms` comes on top."""


@dataclass(frozen=True, slots=True)
class Began:
    """An utterance began, at this sample."""

    first_sample: int


@dataclass(frozen=True, slots=True)
class Audio:
    """The next audio of the utterance: s16le."""

    pcm: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The utterance ended. `samples` were buffered for it, leading silence included."""

    samples: int


Part = Began | Audio | Ended


class Segmenter:
    """Says where utterances begin and end, and which audio belongs to them."""

    def __init__(self, start: Start, probability: Probability) -> None:
        self._probability = probability
        self._speech = Speech(start.vad)
        self._lead_in: deque[bytes] = deque(maxlen=-(-(LEAD_IN_MS + start.vad.speech_pad_ms) // FRAME_MS))
        self._max_samples = int(start.max_utterance_s * SAMPLE_RATE)
        self._first_sample = 0
        # Where the real server's buffer would begin: at the end of the utterance before, or later if
        # the silence since then has filled it (a buffer of silence is discarded without a word).
        self._buffer_start = 0
        self.position = 0

    @property
    def speaking(self) -> bool:
        """Whether an utterance is going on."""
        return self._speech.speaking

    @property
    def buffered(self) -> int:
        """Samples buffered for the utterance going on, leading silence included."""
        return self.position - self._buffer_start

    def push(self, frame: bytes) -> list[Part]:
        """Take the next frame (1,024 bytes). Takes as long as one run of the VAD, 0.12 ms."""
        edge = self._speech.push(self._probability(frame))
        self.position += FRAME_SAMPLES
        if edge is Edge.STARTED:
            lead_in = b"".join(self._lead_in)
            self._lead_in.clear()
            self._first_sample = self.position - FRAME_SAMPLES - len(lead_in) // 2
            return [Began(self._first_sample), Audio(lead_in + frame)]
        if edge is Edge.ENDED:
            return [Audio(frame), self._end()]
        if self.speaking:
            return [Audio(frame), *self._cut()]
        self._lead_in.append(frame)
        self._buffer_start = max(self._buffer_start, self.position - self._max_samples)
        return []

    def finish(self) -> list[Part]:
        """No more audio will come: end the utterance that is going on."""
        if not self.speaking:
            return []
        self._speech.reset()
        return [self._end()]

    def _cut(self) -> list[Part]:
        """End an utterance that got too long in the middle of speech; the next one takes over at once."""
        if self.position - self._first_sample < self._max_samples:
            return []
        self._first_sample = self.position
        return [self._end(), Began(self.position)]

    def _end(self) -> Ended:
        ended = Ended(self.buffered)
        self._buffer_start = self.position
        return ended
