"""What the events of calls say was said, against what was said and what the bridges say that they missed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.local.receiver import Received
from tests.chaos.side import Side
from tests.doubles.numbered import WORD_MS

SLACK_MS = 40
"""A gap's edges are meant to be as exact as this."""

Span = tuple[int, int]
"""From and until, in ms on the call's clock."""


@dataclass(slots=True)
class Told:
    """The count over some tracks of calls."""

    words: int = 0
    """Said while the call was streamed or should have been."""
    missed: int = 0
    """Of these, said in a gap and not delivered."""
    late: int = 0
    """Delivered as `transcript.late`."""
    lost: int = 0
    """Not delivered, and in no gap."""
    twice: int = 0
    disordered: int = 0
    """Tracks whose words came in another order than they were said."""

    def __str__(self) -> str:
        return (
            f"{self.words} words, {self.missed} of them in gaps, {self.late} late, lost {self.lost}, "
            f"said twice {self.twice}, tracks out of order {self.disordered}"
        )

    def require(self) -> None:
        """Raise an `AssertionError` unless every word came once and in order, or is in a gap."""
        assert self.lost == self.twice == self.disordered == 0, str(self)

    def add(
        self, side: Side, received: Iterable[Received], until_ms: int, cuts: Sequence[int] = ()
    ) -> list[Span]:
        """Count a track of a call that was over at `until_ms`; returns its gaps.

        At `cuts`, in ms, a stream began when the one before it had ended already.

        Raises AssertionError for a word that was not said, or that a gap says was missed and that is no late one.
        """
        told = events_of(side.call.report.call_sid, received)
        own = [one for one in told if one.data.get("track") == side.track]
        gaps = [_span(one.data) for one in own if one.type == "transcript.gap"]
        in_order = [side.index(word) for word in _words(own, "transcript.final")]
        late = [side.index(word) for word in _words(own, "transcript.late")]
        counted = Counter(in_order + late)
        for index in range(side.length):
            begins, ends = side.begins_ms(index), side.begins_ms(index) + WORD_MS
            if ends > until_ms - SLACK_MS:
                break
            missing = any(begins < until + SLACK_MS and ends > start - SLACK_MS for start, until in gaps)
            # Whisper knows a word by a part of it: one that was cut in its middle is heard before and after.
            parted = any(begins < cut < ends for cut in cuts)
            self.words += 1
            self.twice += max(0, counted[index] - 1 - parted)
            if not counted[index]:
                self.missed += missing
                self.lost += not missing
        self.late += len(late)
        self.disordered += in_order != sorted(in_order)
        return gaps


def events_of(call_sid: str, received: Iterable[Received]) -> list[Received]:
    """The events of a call, each once, in sequence."""
    events = {one.webhook_id: one for one in received if one.call_sid == call_sid and "sequence" in one.data}
    return sorted(events.values(), key=lambda one: int(one.data["sequence"]))


def _words(events: Sequence[Received], kind: str) -> list[dict[str, Any]]:
    return [word for one in events if one.type == kind for word in one.data["words"]]


def _span(gap: dict[str, Any]) -> Span:
    return gap["start_ms"], gap["end_ms"]
