"""One side of a call on its way to text: its track, and the session that transcribes it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bridge.audio import mulaw
from bridge.audio.upsample import FRAME
from bridge.call.track import Track
from bridge.whisper.session import Session

BEGINS: Final = ".begins"
"""Ends the name of a watermark that says where a journal begins on the call's clock."""


class Gap(NamedTuple):
    """Audio that is missing, from `start` to `end` on the call's clock, in samples."""

    offset: int
    """Where it is in the journal: each is told once."""
    start: int
    end: int
    reason: str
    settles: bool = False
    """Everything before the offset is finalised, or will never be."""


@dataclass(slots=True)
class Leg:
    """A track, its session, and the task that runs it."""

    track: Track
    session: Session
    key: str
    """Of its watermark in the outbox."""
    continued: bool = False
    """Another process had the call before, whose audio is not here."""
    noted: int = 0
    """How far it was last said to be settled."""
    task: asyncio.Task[None] = field(init=False, repr=False)

    def told_key(self, reason: str) -> str:
        """Of the offset up to which gaps were told.

        What cannot be read is found later than what never came, and may lie before it: it has its own.
        """
        return f"{self.key}.{'unreadable' if reason == 'journal_unreadable' else 'gaps'}"

    def settled(self, offset: int) -> dict[str, int]:
        """The watermarks that say so of everything before an offset: here, and for a process without this journal.

        The second one has the bare name of the track. It lies on the call's clock, the same on every machine.
        A third says where this journal begins: the one before it is of no use from there on.
        """
        self.noted = max(self.noted, offset)
        journal = self.track.journal
        found = {self.key: offset, self.track.name: journal.clock(offset)}
        if self.continued:
            found[f"{self.key}{BEGINS}"] = journal.clock(0)
        return found

    @property
    def behind_s(self) -> float:
        """Seconds of audio that wait to be sent to Whisper; less than a frame cannot be."""
        waiting = 0 if self.task.done() else self.track.journal.end - self.session.cursor
        return waiting / mulaw.SAMPLE_RATE if waiting >= FRAME else 0.0

    @property
    def succeeded(self) -> bool:
        """Whether all of its audio is settled, or was given up and told."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    def lost(self, start: int, end: int, reason: str) -> Gap:
        """The session has given up the audio between two offsets."""
        settles = start <= self.session.watermark.offset
        return Gap(end, self.track.journal.clock(start), self.track.journal.clock(end), reason, settles)

    def gaps(self) -> list[Gap]:
        """What is missing in the journal as it was found: what never came, and what cannot be read any more."""
        journal, settled = self.track.journal, self.session.watermark.offset
        found = [
            Gap(seam.offset, seam.missing_from, seam.clock, "not_received") for seam in journal.seams.gaps
        ]
        for begin, end in journal.lost:
            if end > settled:
                start = journal.clock(max(begin, settled))
                found.append(Gap(end, start, journal.clock(end - 1) + 1, "journal_unreadable"))
        return sorted(found)


def follower(watermarks: Mapping[str, int], track: str, begin: int) -> int | None:
    """Where the journal of the next process begins, after one of this track that begins at `begin`; None without."""
    later = [
        position
        for key, position in watermarks.items()
        if key.startswith(f"{track}.") and key.endswith(BEGINS) and position > begin
    ]
    return min(later, default=None)


def watermark_key(track: str, journal_id: str) -> str:
    """The name of a watermark. Offsets mean something in their own journal only, and a call may have had several."""
    return f"{track}.{journal_id}"
