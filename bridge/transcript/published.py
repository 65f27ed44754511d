"""What has been published of a track, so that no word of it is published again.

Before a point everything is settled. After it there are runs, the stretches that finals covered: a server may say
the same audio twice on one socket, or forget an utterance and say it later, between two others.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bridge.audio import mulaw

if TYPE_CHECKING:
    from bridge.transcript.heard import Heard

RUNS: Final = 64
"""Runs remembered: a server that repeats itself does it soon."""

PAUSE: Final = mulaw.SAMPLE_RATE // 2
"""Between words further apart than this something else may have been said."""

LOOSE: Final = mulaw.SAMPLE_RATE // 10
"""Word times of neighbouring finals may overlap by so much without being the same audio."""


@dataclass(slots=True)
class _Run:
    start: int
    end: int
    last_word: str


class Published:
    """Of one track, as a socket that begins to transcribe it needs to know. Offsets into its journal."""

    def __init__(self, before: int = 0, last_text: str = "") -> None:
        self.before = before
        """What lies before this is settled."""
        self.last_text = last_text
        """The latest final when the socket began, empty once it has said something itself."""
        self._runs: list[_Run] = []

    def add(self, heard: "Heard") -> None:
        """A final of this socket was published."""
        self.last_text = ""
        run = _Run(heard.start, heard.end, "")
        for number, word in enumerate(heard.words):
            if number and word.start - run.end <= PAUSE:
                run.end, run.last_word = max(run.end, word.end), word.word
                continue
            if number:
                self._runs.append(run)
            run = _Run(word.start, word.end, word.word)
        self._runs.append(run)
        del self._runs[:-RUNS]

    def has(self, start: int, end: int, word: str = "") -> bool:
        """Whether what was heard from `start` to `end` was published before, judged by its middle."""
        middle = (start + end) // 2
        if middle < self.before:
            return True
        for run in self._runs:
            if run.start <= middle < run.end - LOOSE:
                return True
            if run.start <= middle < run.end and word and folded(word) == folded(run.last_word):
                return True
        return False

    def ends_with(self, word: str) -> bool:
        """Whether the latest final before this socket ended with a word."""
        last = self.last_text.rsplit(maxsplit=1)
        return bool(last) and folded(last[-1]) == folded(word)


def folded(word: str) -> str:
    """A word as it is compared: letters and digits only, whatever their case."""
    return "".join(c for c in word.casefold() if c.isalnum())
