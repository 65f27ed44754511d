"""What a process that was killed left of a journal: reads it, and mends what can be mended.

A killed process leaves its stores in their order, so of an intact disk nothing is missing. This module is for
the rest: a power failure, a disk that was full, a file that somebody removed. What can be read is used; what
cannot is named in `lost`.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.audio import mulaw
from bridge.audio.seams import LONGEST, Seams

SEGMENT: Final = 64 * 1024
"""Bytes of one file: 8.2 s. A multiple of a Whisper frame, so that no frame lies across two files."""

LIMIT: Final = 2 * 3600 * mulaw.SAMPLE_RATE
"""Bytes kept of one track: two hours. Beyond it the oldest audio is given up, and reported as a gap."""

ENDS: Final = struct.Struct("@QQQ")
"""The file `ends`: the offset past the last byte, the one past the last byte that was received, and the one before which
audio was released because nobody needs it any more."""

_NAME: Final = re.compile(r"(\d{6,12})\.ulaw")


def name(segment: int) -> str:
    """The file of a segment."""
    return f"{segment:06d}.ulaw"


@dataclass(slots=True)
class Remains:
    """A journal as it was found. Offsets in bytes."""

    start: int = 0
    end: int = 0
    received: int = 0
    settled: int = 0
    seams: Seams = field(default_factory=Seams)
    absent: set[int] = field(default_factory=set)
    """Segments between `start` and `end` that cannot be read: silence stands for them."""
    lost: list[tuple[int, int]] = field(default_factory=list)
    """Audio that was there, and cannot be had any more."""

    def forfeit(self, segment: int) -> None:
        """A segment cannot be used: nothing is added to it, either."""
        begin, boundary = segment * SEGMENT, (segment + 1) * SEGMENT
        self.absent.add(segment)
        self.lose(begin, min(boundary, self.end))
        if begin < self.end < boundary:
            self.end = boundary

    def lose(self, begin: int, end: int) -> None:
        """Name a stretch as lost, together with the last one if they meet."""
        if self.lost and self.lost[-1][1] == begin:
            begin, _ = self.lost.pop()
        self.lost.append((begin, end))


def read(directory: Path, limit: int = LIMIT) -> Remains:
    """What lies in `directory`. Raises `OSError` when it, or something in it, cannot be looked at now."""
    newest = max(_segments(directory), default=-1)
    end, received, settled = _ends(directory / "ends", newest, limit) or _measured(directory, newest)
    window = range(max(0, end - limit) // SEGMENT, -(-end // SEGMENT))
    present = {segment for segment in _segments(directory) if segment in window}
    first = min(present, default=window.stop)
    found = Remains(first * SEGMENT, end, received)
    if not present and end % SEGMENT:
        found.lose(max(0, end - limit), end)
        found.start = found.end = window.stop * SEGMENT
    for segment in range(first, window.stop):
        size = _mended(directory / name(segment)) if segment in present else 0
        if size == 0:
            found.forfeit(segment)
        elif segment * SEGMENT + size < end and size < SEGMENT:
            found.lose(segment * SEGMENT + size, min((segment + 1) * SEGMENT, end))
    for segment in range(window.stop, newest + 1)[:2]:  # begun by an append that was not finished
        (directory / name(segment)).unlink(missing_ok=True)
    found.settled = min(settled, found.end)
    found.seams = _seams(directory / "seams", end)
    return found


def cut(directory: Path, clock: int) -> None:
    """Remove what lies at `clock` (samples on the call's clock) or later. Raises `OSError`."""
    found = read(directory)
    end = found.seams.offset(clock)
    if end >= found.end:
        return
    for segment in list(_segments(directory)):
        if segment * SEGMENT >= end:
            (directory / name(segment)).unlink()
    (directory / "ends").write_bytes(ENDS.pack(end, min(end, found.received), min(end, found.settled)))


def _segments(directory: Path) -> Iterator[int]:
    """Never a list: somebody may have put a million files there."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if match := _NAME.fullmatch(entry.name):
                yield int(match[1])


def _ends(path: Path, newest: int, limit: int) -> tuple[int, int, int] | None:
    """The offsets; None if they are not there, or do not fit the newest segment."""
    try:
        end, received, settled = ENDS.unpack(path.read_bytes()[: ENDS.size])
    except (FileNotFoundError, struct.error):
        return None
    # Behind: one is made before it is needed, and an append across two was killed. Ahead: the disk took no more.
    fits = newest < 0 or (newest - 2) * SEGMENT < end <= (newest + 1) * SEGMENT + limit
    return (end, min(received, end), settled) if fits and end < 1 << 48 else None


def _measured(directory: Path, newest: int) -> tuple[int, int, int]:
    """The end as the newest segment with audio in it has it: what was never written there is zero."""
    for segment in range(newest, -1, -1):
        try:
            written = len((directory / name(segment)).read_bytes()[:SEGMENT].rstrip(b"\0"))
        except FileNotFoundError:
            written = SEGMENT
        if written:
            end = segment * SEGMENT + written
            return end, end, 0
    return 0, 0, 0


def _mended(path: Path) -> int:
    """How much of a segment was there before it was brought to its length; 0 if it cannot be used."""
    try:
        size = path.stat().st_size
        if 0 < size < SEGMENT:
            with path.open("ab") as file:
                file.write(bytes([mulaw.SILENCE]) * (SEGMENT - size))
    except FileNotFoundError:
        return 0
    return size


def _seams(path: Path, end: int) -> Seams:
    """What can be read of the seams; the file is written anew, or what is added would follow half a line."""
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST).decode("ascii", "replace")
    except FileNotFoundError:
        text = ""
    seams = Seams.parse(text, end)
    if (mended := seams.lines()) != text:
        fresh = path.with_suffix(".new")
        fresh.write_text(mended)
        fresh.replace(path)
    return seams
