"""One of the two people of a call, who says numbered words without end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from bridge.events import Track
from bridge.local.twilio.call import SimulatedCall
from tests.doubles.numbered import PAUSE_MS, VOCABULARY, WORD_MS, speech

UTTERANCE: Final = 2
"""Words of one: short, so that many are finalised in a short time."""

UTTERANCE_MS: Final = UTTERANCE * (WORD_MS + PAUSE_MS) + 400


def words_in(seconds: float) -> int:
    """How many words are said in so much time, whole utterances."""
    return round(seconds * 1000 / UTTERANCE_MS) * UTTERANCE


def voices(number: int, length: int) -> dict[Track, bytes]:
    """What is said on a call, `length` words by each; calls with different numbers do not sound alike."""
    return {
        track: speech(range(first, first + length), utterance=UTTERANCE)
        for track, first in _firsts(number).items()
    }


def _firsts(number: int) -> dict[Track, int]:
    return {"inbound": 7 * number, "outbound": 7 * number + VOCABULARY // 2}


@dataclass(slots=True)
class Side:
    """One track of a call."""

    call: SimulatedCall
    track: Track
    first: int
    """Number of its first word."""
    length: int
    """Words in all."""

    def word(self, index: int) -> str:
        """What a server understands of a word."""
        return f"w{(self.first + index) % VOCABULARY}"

    @staticmethod
    def begins_ms(index: int) -> int:
        """Where a word begins on the call's clock."""
        return index // UTTERANCE * UTTERANCE_MS + index % UTTERANCE * (WORD_MS + PAUSE_MS)

    def index(self, word: dict[str, Any]) -> int:
        """Which of the words that were said this is, by its sound and, roughly, its place: a gap may have cut it."""
        near = round(word["start_ms"] / UTTERANCE_MS) * UTTERANCE
        for index in range(max(0, near - UTTERANCE), near + UTTERANCE + 1):
            if self.word(index) == word["word"]:
                return index
        raise AssertionError(f"{self.track}: {word['word']} was not said at {word['start_ms']} ms")

    @classmethod
    def of(cls, call: SimulatedCall, number: int, length: int, tracks: Sequence[Track]) -> list[Self]:
        """Those of a call whose audio is `voices(number, length)`, as far as it is streamed."""
        return [cls(call, track, _firsts(number)[track], length) for track in tracks]
