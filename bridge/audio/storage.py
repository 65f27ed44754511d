"""The files of a journal: made, mapped and removed."""

import mmap
import os
from pathlib import Path

from bridge import log, metrics
from bridge.audio.remains import SEGMENT

_logger = log.get(__name__)


def refused(directory: Path, error: OSError) -> None:
    """Count and log what the disk did not do."""
    metrics.JOURNAL_REFUSALS.inc()
    _logger.error("journal_file_refused", directory=str(directory), error=error.strerror or str(error))


def remove(*paths: Path) -> None:
    """Remove files, or an empty directory; one that somebody else has removed is no loss."""
    for path in paths:
        try:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except OSError as error:
            refused(path.parent, error)


def made(path: Path) -> mmap.mmap:
    """A new segment, mapped. Raises `OSError`."""
    create(path, SEGMENT)
    try:
        return mapped(path, SEGMENT)
    except OSError:
        path.unlink(missing_ok=True)  # or its zeros would be taken for audio
        raise


def create(path: Path, size: int) -> None:
    """A new file of `size` bytes, its blocks allocated: writing to a hole on a full disk would kill us."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:  # macOS
            os.pwrite(descriptor, bytes(size), 0)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def mapped(path: Path, size: int) -> mmap.mmap:
    """A file's first bytes. Raises `OSError`, and `ValueError` if it is shorter."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), size)
