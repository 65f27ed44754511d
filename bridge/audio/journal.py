"""What was heard on one track and is not yet finalised: mu-law bytes in memory-mapped files.

Audio is addressed by *offset*, the count of bytes (samples at 8 kHz) since the track's first one. What is
appended is in the page cache at once, without a system call, so it outlives this process; only the segments
at both ends are mapped, so memory is bounded however long Whisper is away; and what is finalised is deleted.

A *seam* says where an offset lies on the call's clock; between seams both advance together. There is one at
the track's first sample, and one wherever Twilio's timestamps jump further than silence can fill.

Files of one journal: `000000.ulaw`, `000001.ulaw` ... (`SEGMENT` bytes each), `end` (the offset past the
last byte, 8 bytes little-endian) and `seams` (lines of offset and clock position in samples).
"""

import mmap
import os
import struct
from bisect import bisect_right
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bridge import log, metrics
from bridge.audio import mulaw

SEGMENT: Final = 64 * 1024
"""Bytes of one file: 8.2 s. A multiple of a Whisper frame, so that no frame lies across two files."""

LIMIT: Final = 2 * 3600 * mulaw.SAMPLE_RATE
"""Bytes kept of one track: two hours. Beyond it the oldest audio is given up, and reported as a gap."""

_END: Final = struct.Struct("<Q")

_logger = log.get(__name__)


class Unreadable(Exception):  # noqa: N818 - a state of the disk
    """A segment cannot be read now."""

    def __init__(self, segment: int, reason: str) -> None:
        super().__init__(f"segment {segment}: {reason}")
        self.segment = segment


class Journal:
    """The audio of one track in `directory`, which it creates and, when all is finalised, removes."""

    def __init__(self, directory: Path) -> None:
        self.start = 0
        """Offset of the oldest byte that can still be read."""
        self.end = 0
        """Offset past the newest byte."""
        self._directory = directory
        self._segments: dict[int, mmap.mmap] = {}  # mapped now: the two ends, plus what was just read
        self._unfiled: set[int] = set()  # segments that live in memory only, because the disk refused them
        self._seams: list[tuple[int, int]] = []
        self._last_seam = (0, 0)
        self._tail = self._new_directory()

    def append(self, data: bytes) -> None:
        """Keep `data` at the end; when the journal is longer than `LIMIT`, its oldest segment goes."""
        taken = 0
        while taken < len(data):
            index, within = divmod(self.end, SEGMENT)
            if within == 0:
                self._extend(index)
            part = data[taken : taken + SEGMENT - within]
            self._segments[index][within : within + len(part)] = part
            taken += len(part)
            self.end += len(part)
        if self._tail is not None:
            _END.pack_into(self._tail, 0, self.end)

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Copy the bytes from `offset` into `out`; before the journal's start there is silence.

        The caller asks for nothing past `end`. Raises `Unreadable`.
        """
        done = 0
        if offset < self.start:
            done = min(self.start - offset, len(out))
            out[:done] = mulaw.SILENCE
        while done < len(out):
            index, within = divmod(offset + done, SEGMENT)
            count = min(len(out) - done, SEGMENT - within)
            out[done : done + count] = np.frombuffer(self._segment(index), np.uint8, count, within)
            done += count

    def release(self, before: int) -> None:
        """Forget the audio before an offset. Whole segments are deleted; the rest goes with its segment."""
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
        silence = self._segments[segment] = mmap.mmap(-1, SEGMENT)
        silence[:] = bytes([mulaw.SILENCE]) * SEGMENT
        self._unfiled.add(segment)
        return segment * SEGMENT, min((segment + 1) * SEGMENT, self.end)

    def seam(self, clock: int) -> None:
        """Say that the next byte appended lies at `clock` samples on the call's clock."""
        self._last_seam = (self.end, clock)
        self._seams.append(self._last_seam)
        if self._tail is not None:
            try:
                with (self._directory / "seams").open("a") as file:
                    file.write(f"{self.end} {clock}\n")
            except OSError as error:
                self._refused(error)

    def clock(self, offset: int) -> int:
        """Where an offset lies on the call's clock, in samples."""
        seam_offset, seam_clock = self._last_seam
        if offset < seam_offset:
            index = max(bisect_right(self._seams, (offset, 1 << 62)) - 1, 0)
            seam_offset, seam_clock = self._seams[index]
        return seam_clock + offset - seam_offset

    def close(self, *, delete: bool) -> None:
        """Unmap everything; with `delete` remove the files too, else leave them for whoever opens them next."""
        if delete:
            for index in range(self.start // SEGMENT, -(-self.end // SEGMENT)):
                self._delete(index)
        for segment in self._segments.values():
            segment.close()
        self._segments.clear()
        if self._tail is None:
            return
        self._tail.close()
        self._tail = None
        if delete:
            try:
                for name in ("end", "seams"):
                    (self._directory / name).unlink(missing_ok=True)
                self._directory.rmdir()
            except OSError as error:
                self._refused(error)

    def _new_directory(self) -> mmap.mmap | None:
        try:
            self._directory.mkdir(mode=0o700, parents=True)
            return _mapped(self._directory / "end", 8)
        except OSError as error:
            self._refused(error)
            return None

    def _extend(self, index: int) -> None:
        """Map the next segment, unmap the one before it unless it is being read, and keep to the limit."""
        segment: mmap.mmap | None = None
        if self._tail is not None:
            try:
                segment = _mapped(self._path(index), SEGMENT)
            except OSError as error:
                self._refused(error)
        if segment is None:
            segment = mmap.mmap(-1, SEGMENT)
            self._unfiled.add(index)
        self._segments[index] = segment
        self._unmap_all_but(index - 1, index)
        self.release(self.end + SEGMENT - LIMIT + SEGMENT - 1)  # rounded up: whole segments are released

    def _segment(self, index: int) -> mmap.mmap:
        segment = self._segments.get(index)
        if segment is None:
            try:
                with self._path(index).open("r+b") as file:
                    segment = self._segments[index] = mmap.mmap(file.fileno(), SEGMENT)
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
        if index in self._unfiled:
            self._unfiled.discard(index)
            return
        try:
            self._path(index).unlink()
        except OSError as error:
            self._refused(error)

    def _path(self, index: int) -> Path:
        return self._directory / f"{index:06d}.ulaw"

    def _refused(self, error: OSError) -> None:
        metrics.JOURNAL_REFUSALS.inc()
        _logger.error(
            "journal_file_refused", directory=str(self._directory), error=error.strerror or str(error)
        )


def _mapped(path: Path, size: int) -> mmap.mmap:
    """A new file of `size` bytes, its blocks allocated: writing to a hole on a full disk would kill us."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS
            os.pwrite(descriptor, bytes(size), 0)
        return mmap.mmap(descriptor, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
