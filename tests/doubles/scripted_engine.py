"""An engine that says what a test wrote down. For tests only: the product has no canned transcripts."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.local.whisper.engine import EngineError, Options, Recognition, Segment, Word

SAMPLE_RATE = 16_000


@dataclass
class ScriptedEngine:
    """Recognises its script, one sentence an utterance, over and over; an empty sentence is an empty final.

    Words are spread evenly over an utterance; a partial has the words whose audio has come, taking
    `word_s` for each. `final_delay_s` is how long a final takes; a sentence `!` fails.
    """

    script: Sequence[str] = ("hello",)
    word_s: float = 0.3
    final_delay_s: float = 0.0
    opened: int = 0
    closed: int = 0
    cancelled: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an utterance was cancelled."""
    options: list[Options] = field(default_factory=list)
    audio: list[bytearray] = field(default_factory=list)
    """What each utterance was fed."""

    @property
    def name(self) -> str:
        return "scripted"

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    def utterance(self, options: Options) -> "ScriptedUtterance":
        self.options.append(options)
        self.audio.append(bytearray())
        return ScriptedUtterance(self, self.script[(len(self.audio) - 1) % len(self.script)], self.audio[-1])


class ScriptedUtterance:
    def __init__(self, engine: ScriptedEngine, sentence: str, audio: bytearray) -> None:
        self._engine = engine
        self._sentence = sentence
        self._audio = audio

    def feed(self, pcm: bytes) -> None:
        self._audio += pcm

    async def partial(self) -> Recognition:
        heard = int(len(self._audio) / 2 / SAMPLE_RATE / self._engine.word_s)
        return recognition(" ".join(self._sentence.split()[:heard]), self._seconds)

    async def final(self) -> Recognition:
        seconds = self._seconds
        await asyncio.sleep(self._engine.final_delay_s)
        if self._sentence == "!":
            raise EngineError("The recogniser failed on this utterance")
        return recognition(self._sentence, seconds)

    def cancel(self) -> None:
        self._engine.cancelled += 1
        self._engine.left.set()

    @property
    def _seconds(self) -> float:
        return len(self._audio) / 2 / SAMPLE_RATE


def recognition(sentence: str, seconds: float) -> Recognition:
    spoken = sentence.split()
    if not spoken:
        return Recognition()
    each = seconds / len(spoken)
    words = tuple(Word(word, i * each, (i + 1) * each, 0.9) for i, word in enumerate(spoken))
    return Recognition((Segment(sentence, 0.0, seconds, -0.2, words),))
