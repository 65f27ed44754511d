"""What was heard on one track and is not yet finalised: mu-law bytes in memory-mapped files.

Audio is addressed by *offset*, the count of bytes (samples at 8 kHz) since the track's first one. What is
appended is in the page cache at once, without a system call, so it outlives this process; only the segments
at both ends are mapped, so memory is bounded however long Whisper is away; and what is finalised is deleted.

Files of one journal: `000000.ulaw`, `000001.ulaw` ... (`SEGMENT` bytes each), `ends` and `seams`. A process may be
killed between any two instructions. Its stores remain in their order, so the audio comes first and `ends`
after it: what `ends` says is there is there, and at most the append that was being made is not, or is there
and counts as silence that nobody sent.
"""

import contextlib
import mmap
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Final

from bridge.audio import mulaw, remains, storage
from bridge.audio.remains import ENDS, LIMIT, SEGMENT, Remains
from bridge.audio.seams import Seam, Seams

_SILENT: Final = bytes([mulaw.SILENCE]) * SEGMENT


class Unreadable(Exception):  # noqa: N818 - a state of the disk
    """A segment cannot be read now."""

    def __init__(self, segment: int, reason: str) -> None:
        super().__init__(f"segment {segment}: {reason}")
        self.segment = segment


class Journal:
    """The audio of one track in `directory`: what an earlier process left there, and what comes.

    When all is finalised the directory is removed. Files are made and removed by `files`, one after the other: a file
    system that writes its own log lets whoever asks it for that wait, 0.2 s at times, and so all calls. The next
    segment is made while this one is filled. Without `files` it is all done at once.
    """

    def __init__(self, directory: Path, files: Executor | None = None) -> None:
        self._directory = directory
        self._files = files
        self._next: Future[mmap.mmap] | None = None  # the segment after the last
        self._segments: dict[int, mmap.mmap] = {}  # mapped now: the two ends, plus what was just read
        self._unfiled: set[int] = set()  # segments that live in memory only, because the disk refused them
        self._ends: memoryview | None = None  # see `remains.ENDS`; None: there are no files
        self.unopened = False
        """There is audio of an earlier process that cannot be opened now: it stays as it is, and what comes is in memory."""
        found = self._open()
        self.start = found.start
        """Offset of the oldest byte that can still be read."""
        self.end = found.end
        """Offset past the newest byte."""
        self.received = found.received
        """Offset past the newest byte that was received, not added as silence."""
        self.settled = found.settled
        """Audio before this offset was released by an earlier process: it is not missing."""
        self.untold = 0
        """Gaps that are not stored yet: until they are, nothing counts as settled."""
        self.seams = found.seams
        self.lost = found.lost
        """Stretches of offsets that an earlier process had, and that cannot be read."""
        self._silent = found.absent  # segments that silence stands for

    def append(self, data: bytes) -> None:
        """Keep what was received at the end; when the journal is longer than `LIMIT`, its oldest segment goes."""
        self._append(data)
        self.received = self.end
        if self._ends is not None:
            self._ends[1] = self.received

    def fill(self, count: int) -> None:
        """Add silence, which nobody sent."""
        self._append(bytes([mulaw.SILENCE]) * count)

    def read(self, offset: int, count: int) -> bytes:
        """So many bytes from `offset` on; before the journal's start there is silence.

        The caller asks for nothing past `end`. Raises `Unreadable`.
        """
        index, within = divmod(offset, SEGMENT)
        if 0 < count <= SEGMENT - within and offset >= self.start:
            return self._segment(index)[within : within + count]
        parts = [bytes([mulaw.SILENCE]) * min(self.start - offset, count)] if offset < self.start else []
        at, end = max(offset, self.start), offset + count
        while at < end:
            index, within = divmod(at, SEGMENT)
            part = self._segment(index)[within : within + end - at]
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def release(self, before: int) -> None:
        """Forget the audio before an offset, as it is settled. Whole segments are deleted; the rest goes with its segment.

        That it was settled is kept first, so that a later process does not take it for missing.
        """
        before = min(before, self.end)
        if before // SEGMENT <= self.start // SEGMENT:
            return
        if self._ends is not None and not self.untold:
            self._ends[2] = before
        self._drop(before)

    def _drop(self, before: int) -> None:
        """Delete the segments before an offset."""
        first = self.start // SEGMENT
        keep = min(before, self.end) // SEGMENT
        if keep <= first:
            return
        for index in range(first, keep):
            self._delete(index)
        self.start = keep * SEGMENT

    def give_up(self, segment: int) -> tuple[int, int]:
        """Put silence in the place of a segment that cannot be read; returns its offsets."""
        self._delete(segment)
        self._silent.add(segment)
        return segment * SEGMENT, min((segment + 1) * SEGMENT, self.end)

    def seam(self, clock: int, missing_from: int | None = None) -> None:
        """Say that the next byte appended lies at `clock` samples on the call's clock; see `Seam`."""
        seam = Seam(self.end, clock, clock if missing_from is None else missing_from)
        self.seams.add(seam)
        if self._ends is not None:
            try:
                with (self._directory / "seams").open("a") as file:
                    file.write(Seams([seam]).lines())
            except OSError as error:
                storage.refused(self._directory, error)

    def clock(self, offset: int) -> int:
        """Where an offset lies on the call's clock, in samples."""
        return self.seams.clock(offset)

    def close(self, *, delete: bool) -> None:
        """Unmap everything; with `delete` remove the files too, else leave them for whoever opens them next."""
        if delete:
            for index in range(self.start // SEGMENT, -(-self.end // SEGMENT)):
                self._delete(index)
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        if self._next is not None and not self._next.cancel():
            self._remove(self._path(-(-self.end // SEGMENT)))  # it has no audio in it yet
        self._next = None
        if self._ends is None:
            return
        self._ends = None
        if delete:
            self._remove(self._directory / "ends", self._directory / "seams", self._directory)

    def _append(self, data: bytes) -> None:
        taken, size, end = 0, len(data), self.end
        while taken < size:
            index, within = divmod(end, SEGMENT)
            if within == 0:
                self._extend(index)
            part = data[taken : taken + SEGMENT - within]  # the same bytes unless they cross a boundary
            self._segments[index][within : within + len(part)] = part
            taken += len(part)
            end = self.end = end + len(part)
        if self._ends is not None:
            self._ends[0] = end  # one store of eight bytes: no kill leaves half of it

    def _open(self) -> Remains:
        """What is in the directory, which is made if need be; what the disk refuses stays in memory."""
        found = Remains()
        try:
            if not self._made():
                found = self._left()
            if self.unopened:
                return found
            self._ends = self._made_ends(found)
        except OSError as error:
            storage.refused(self._directory, error)
        return found

    def _made_ends(self, found: Remains) -> memoryview:
        """The offsets on the disk. A kill leaves what was there, or what is there now. Raises `OSError`."""
        ends = self._directory / "ends"
        fresh = self._directory / "ends.new"
        fresh.unlink(missing_ok=True)
        usable = ends.exists() and ends.stat().st_size == ENDS.size
        if not usable:
            storage.create(fresh, ENDS.size)
        mapped = memoryview(storage.mapped(ends if usable else fresh, ENDS.size)).cast("Q")
        mapped[0], mapped[1], mapped[2] = found.end, found.received, found.settled
        if not usable:
            fresh.replace(ends)
        return mapped

    def _made(self) -> bool:
        """Make the directory; False if there is one already. Raises `OSError`."""
        try:
            self._directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            if not self._directory.is_dir():
                raise
            return False
        return True

    def _left(self) -> Remains:
        """What an earlier process left, its last segment mapped; nothing, and `unopened`, if it cannot be had now."""
        try:
            found = remains.read(self._directory)
            tail = found.end // SEGMENT
            try:
                if found.end % SEGMENT:
                    self._segments[tail] = storage.mapped(self._path(tail), SEGMENT)
            except (FileNotFoundError, ValueError):  # it is missing, or short
                found.forfeit(tail)
        except OSError as error:
            self.unopened = True
            storage.refused(self._directory, error)
            return Remains()
        return found

    def _extend(self, index: int) -> None:
        """Map the next segment, unmap the one before it unless it is being read, and keep to the limit."""
        segment: mmap.mmap | None = None
        if self._ends is not None:
            try:
                segment = self._made_segment(index)
            except OSError as error:
                storage.refused(self._directory, error)
        if segment is None:
            segment = mmap.mmap(-1, SEGMENT)
            self._unfiled.add(index)
        self._segments[index] = segment
        self._unmap_all_but(index - 1, index)
        self._drop(self.end + SEGMENT - LIMIT + SEGMENT - 1)  # rounded up: whole segments are released

    def _made_segment(self, index: int) -> mmap.mmap:
        """The file of a new segment. Raises `OSError`."""
        following, self._next = self._next, None
        if self._files is not None:
            self._next = self._files.submit(storage.made, self._path(index + 1))
        if following is not None and not following.cancel():
            with contextlib.suppress(OSError):  # it is tried once more, and may have passed
                return following.result()
        return storage.made(self._path(index))

    def _segment(self, index: int) -> mmap.mmap | bytes:
        segment = self._segments.get(index)
        if segment is None:
            if index in self._silent:
                return _SILENT
            try:
                segment = self._segments[index] = storage.mapped(self._path(index), SEGMENT)
            except (OSError, ValueError) as error:  # ValueError: the file is shorter than it was
                raise Unreadable(index, str(error)) from error
            self._unmap_all_but(index - 1, index, (self.end - 1) // SEGMENT)
        return segment

    def _unmap_all_but(self, *keep: int) -> None:
        for index in [i for i in self._segments if i not in keep and i not in self._unfiled]:
            self._segments.pop(index).close()

    def _delete(self, index: int) -> None:
        segment = self._segments.pop(index, None)
        if segment is not None:
            segment.close()
        if index in self._unfiled or index in self._silent:
            self._unfiled.discard(index)
            self._silent.discard(index)
            return
        self._remove(self._path(index))

    def _remove(self, *paths: Path) -> None:
        if self._files is None:
            storage.remove(*paths)
        else:
            self._files.submit(storage.remove, *paths)

    def _path(self, index: int) -> Path:
        return self._directory / remains.name(index)
