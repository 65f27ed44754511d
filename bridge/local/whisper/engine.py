"""Engines: what turns speech into words, behind one small interface, and the choice between them."""

import importlib.util
from typing import Literal, Protocol

import msgspec

from bridge.errors import BridgeError, UsageError

EngineName = Literal["auto", "pocketsphinx", "faster-whisper"]


class EngineError(Exception):
    """One utterance could not be recognised; the sentence may be sent to the client."""


class Word(msgspec.Struct, frozen=True):
    """One word. Times are seconds from the utterance's first sample."""

    text: str
    start_s: float
    end_s: float
    probability: float | None = None


class Segment(msgspec.Struct, frozen=True):
    """Some words said together. Times are seconds from the utterance's first sample."""

    text: str
    start_s: float
    end_s: float
    log_prob: float | None = None
    words: tuple[Word, ...] = ()
    possible_hallucination: bool = False


class Recognition(msgspec.Struct, frozen=True):
    """What was understood of an utterance; without segments if nothing was."""

    segments: tuple[Segment, ...] = ()
    language: str | None = None
    language_prob: float | None = None


class Options(msgspec.Struct, frozen=True):
    """What a session asks of its recogniser."""

    language: str = "en"
    prompt: str = ""


class Utterance(Protocol):
    """One stretch of speech on its way to becoming text.

    Feed it while the person speaks; ask for partials as often as you like, but for one at a time; ask
    for the final exactly once, or cancel.
    """

    def feed(self, pcm: bytes) -> None:
        """Take more audio: s16le, 16 kHz, mono. Never blocks."""

    async def partial(self) -> Recognition | None:
        """What is understood so far, or None if finding out would delay somebody's final."""

    async def final(self) -> Recognition:
        """What was said. Ends the utterance. Raises `EngineError`."""

    def cancel(self) -> None:
        """Nobody wants the result any more. Harmless after the final."""


class Engine(Protocol):
    """A recogniser for any number of utterances at the same time."""

    @property
    def name(self) -> str:
        """What a person should read: the recogniser and its model, honestly."""

    async def open(self) -> None:
        """Load everything, so that the first utterance is as fast as the tenth. Raises `BridgeError`."""

    async def close(self) -> None:
        """Give everything back. Harmless if never opened."""

    def utterance(self, options: Options) -> Utterance:
        """Begin an utterance. When too many are waiting already, its final raises `EngineError`."""


def choose(name: EngineName = "auto", model: str | None = None) -> Engine:
    """The engine of that name, not yet opened.

    `auto` is pocketsphinx, or faster-whisper if a model is named or nothing else is installed.
    Raises `BridgeError` with what to install when the engine is missing, and `UsageError` for an
    unknown name or a model given to an engine that brings its own.
    """
    if name not in ("auto", "pocketsphinx", "faster-whisper"):
        raise UsageError(f"There is no engine named {name!r}: use auto, pocketsphinx or faster-whisper.")
    if name == "pocketsphinx" and model is not None:
        raise UsageError("pocketsphinx brings its own model: --model is for --engine faster-whisper.")
    if name == "faster-whisper" or (name == "auto" and model is not None):
        return _faster_whisper(model)
    if _installed("pocketsphinx"):
        from bridge.local.whisper.sphinx import SphinxEngine  # noqa: PLC0415 - only if chosen

        return SphinxEngine()
    if name == "auto" and _installed("faster_whisper"):
        return _faster_whisper(model)
    wanted = "No recogniser is installed" if name == "auto" else "pocketsphinx is not installed"
    raise BridgeError(f"{wanted}: pip install 'whisper-bridge[local]'")


def _faster_whisper(model: str | None) -> Engine:
    if not _installed("faster_whisper"):
        raise BridgeError("faster-whisper is not installed: pip install 'whisper-bridge[whisper]'")
    from bridge.local.whisper.faster import DEFAULT_MODEL, FasterWhisperEngine  # noqa: PLC0415 - only if chosen

    return FasterWhisperEngine(model or DEFAULT_MODEL)


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
