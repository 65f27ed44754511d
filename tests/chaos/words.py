"""What callers said, word for word, against what the bridge's events say that they said."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bridge.local.receiver import Received


@dataclass(slots=True)
class Words:
    """The count over some calls."""

    spoken: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    """Calls whose words came in another order than they were said, or whose finals lie in another."""

    def compare(self, spoken: Sequence[str], events: Iterable[Received]) -> None:
        """Add a call: what was said on one of its tracks, and all its events."""
        finals = [each.data for each in events if each.type in {"transcript.final", "transcript.late"}]
        understood = [word for final in finals for word in final["text"].split()]
        missing, extra = Counter(spoken) - Counter(understood), Counter(understood) - Counter(spoken)
        starts = [final["start_ms"] for final in finals]
        self.spoken += len(spoken)
        self.lost += missing.total()
        self.repeated += extra.total()
        kept = list(_without(spoken, missing))
        self.disordered += starts != sorted(starts) or (not extra and list(understood) != kept)

    def __str__(self) -> str:
        return f"{self.spoken} words, {self.lost} lost, {self.repeated} repeated, {self.disordered} calls out of order"

    def require(self) -> None:
        """Raise an `AssertionError` unless every word came once and in order."""
        assert self.lost == self.repeated == self.disordered == 0, str(self)


def _without(words: Sequence[str], missing: Counter[str]) -> Iterable[str]:
    """The words but for the missing ones: which of several equal words is missing nobody can tell."""
    left = Counter(missing)
    for word in words:
        if left[word]:
            left[word] -= 1
        else:
            yield word
