"""The layout of SQLite's write-ahead log (https://www.sqlite.org/fileformat2.html#walformat)."""

import sys
from pathlib import Path
from typing import Final

PAGE: Final = 4096
"""Bytes; SQLite's default."""

FRAME_HEADER: Final = 24
FRAME: Final = FRAME_HEADER + PAGE
HEADER: Final = 32
AUTOCHECKPOINT: Final = 1000
"""Frames at which a commit also copies the log into the file; the next one begins it anew."""


def frames(database: Path) -> int:
    """How many frames of the log count, as the header of its index says: `mxFrame`, 16 bytes in."""
    with Path(f"{database}-shm").open("rb") as index:
        return int.from_bytes(index.read(20)[16:], sys.byteorder)


def end(database: Path) -> int:
    """Where the next frame will be written, in bytes; what lies behind it is older."""
    return HEADER + frames(database) * FRAME


def content(database: Path) -> bytes:
    """The log as it lies beside its database."""
    return Path(f"{database}-wal").read_bytes()


def page_numbers(log: bytes) -> list[int]:
    """The page of the file (1, 2, 3 ...) that each frame is a copy of."""
    return [int.from_bytes(log[at : at + 4]) for at in range(HEADER, len(log) - FRAME + 1, FRAME)]
