"""One side of a call on its way to text: its track, and the session that transcribes it."""

import asyncio
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.audio.upsample import FRAME
from bridge.call.track import Track
from bridge.whisper.session import Session


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
    task: asyncio.Task[None] = field(init=False, repr=False)

    def told_key(self, reason: str) -> str:
        """Of the offset up to which gaps were told.

        What cannot be read is found later than what never came, and may lie before it: it has its own.
        """
        return f"{self.key}.{'unreadable' if reason == 'journal_unreadable' else 'gaps'}"

    @property
    def behind(self) -> bool:
        """Whether audio waits to be sent to Whisper."""
        return not self.task.done() and self.session.cursor + FRAME <= self.track.journal.end

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


def watermark_key(track: str, journal_id: str) -> str:
    """The name of a watermark. Offsets mean something in their own journal only, and a call may have had several."""
    return f"{track}.{journal_id}"
