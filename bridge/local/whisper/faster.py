"""faster-whisper as an engine: Whisper itself, over whole utterances, in threads (CTranslate2 frees Python's lock)."""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from bridge.errors import BridgeError
from bridge.local.whisper.engine import EngineError, Options, Recognition, Segment, Word

DEFAULT_MODEL = "small.en"
"""English, 0.5 GB: the largest that keeps up with a call on a laptop's processor."""

WORKERS = 2
"""Decodes at a time. Partials leave one free, so that a final never waits for one."""

NO_SPEECH = 0.6
COMPRESSION_RATIO = 2.4
LOG_PROB = -1.0
"""OpenAI's thresholds for text that was made up: probably no speech (and not sure of the words), or repetitive."""


class FasterWhisperUtterance:
    """One utterance: keeps its audio until somebody asks."""

    def __init__(self, engine: "FasterWhisperEngine", options: Options) -> None:
        self._engine = engine
        self._options = options
        self._audio = bytearray()

    def feed(self, pcm: bytes) -> None:
        """Take more audio: s16le, 16 kHz, mono. Never blocks."""
        self._audio += pcm

    async def partial(self) -> Recognition | None:
        """What is understood so far; None while the engine is busy."""
        if self._engine.busy:
            return None
        try:
            return await self._engine.transcribe(bytes(self._audio), self._options)
        except EngineError:
            return None  # the final will say so

    async def final(self) -> Recognition:
        """What was said. Raises `EngineError`."""
        return await self._engine.transcribe(bytes(self._audio), self._options)

    def cancel(self) -> None:
        """Nobody wants the result any more; a decode that has begun runs to its end."""
        self._audio.clear()


class FasterWhisperEngine:
    """A Whisper model: the name of one that the library downloads, or a folder with a CTranslate2 model."""

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._model_name = model
        self._model: Any = None
        self._threads: ThreadPoolExecutor | None = None
        self._running = 0

    @property
    def name(self) -> str:
        """The library and the model."""
        return f"faster-whisper ({self._model_name})"

    @property
    def busy(self) -> bool:
        """Whether a partial would delay somebody's final."""
        return self._running > 0

    async def open(self) -> None:
        """Load the model, downloading it if need be. Raises `BridgeError`."""
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="whisper")
        try:
            self._model = await asyncio.get_running_loop().run_in_executor(self._threads, self._load)
        except BridgeError:
            await self.close()
            raise

    async def close(self) -> None:
        """Give the model back, after the decodes that run."""
        threads, self._threads, self._model = self._threads, None, None
        if threads:
            await asyncio.to_thread(threads.shutdown, wait=True, cancel_futures=True)

    def utterance(self, options: Options) -> FasterWhisperUtterance:
        """Begin an utterance."""
        return FasterWhisperUtterance(self, options)

    async def transcribe(self, audio: bytes, options: Options) -> Recognition:
        """Decode a whole utterance in a thread. Raises `EngineError`."""
        if self._threads is None:
            raise EngineError("The recogniser was stopped")
        self._running += 1
        try:
            work = functools.partial(self._transcribe, audio, options)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (RuntimeError, ValueError) as error:  # CTranslate2's, and faster-whisper's for a bad language
            raise EngineError(f"Whisper failed on this utterance: {error}") from error
        finally:
            self._running -= 1

    def _load(self) -> Any:
        try:
            from faster_whisper import WhisperModel  # noqa: PLC0415 - an optional extra, slow to import
        except ImportError as error:
            raise BridgeError(
                "faster-whisper is not installed: pip install 'whisper-bridge[whisper]'"
            ) from error
        try:
            return WhisperModel(self._model_name, num_workers=WORKERS)
        except Exception as error:  # the library, the hub's client and CTranslate2 each raise their own
            raise BridgeError(
                f"The Whisper model {self._model_name!r} can be neither loaded nor downloaded "
                f"({' '.join(str(error).split())}): name a folder with a CTranslate2 model, "
                "or connect to the network once."
            ) from error

    def _transcribe(self, audio: bytes, options: Options) -> Recognition:
        samples = np.frombuffer(audio, dtype="<i2").astype(np.float32) / 32768
        segments, info = self._model.transcribe(
            samples,
            language=None if options.language == "auto" else options.language,
            initial_prompt=options.prompt or None,
            beam_size=1,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        # `segments` is a generator: reading it is what decodes.
        detected = options.language == "auto"
        return Recognition(
            tuple(_segment(segment) for segment in segments),
            info.language,
            info.language_probability if detected else None,
        )


def _segment(segment: Any) -> Segment:
    unsure = segment.avg_logprob < LOG_PROB
    return Segment(
        text=segment.text.strip(),
        start_s=float(segment.start),
        end_s=float(segment.end),
        log_prob=float(segment.avg_logprob),
        words=tuple(
            Word(word.word.strip(), float(word.start), float(word.end), float(word.probability))
            for word in segment.words or ()
        ),
        possible_hallucination=segment.compression_ratio > COMPRESSION_RATIO
        or (segment.no_speech_prob > NO_SPEECH and unsure),
    )
