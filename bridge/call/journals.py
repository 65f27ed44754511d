"""Where the calls' audio lies, and how a process takes over what one before it left.

`root/<node>/<call>.<id>/<track>/`. A node is one life of one process: it holds its directory's `lock` as long as
it lives, however it ends. Who can take that lock may take the calls; he moves them into his own directory, one
rename each, so at any moment each belongs to exactly one process.
"""

import asyncio
import contextlib
import fcntl
import functools
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self

from bridge import events, log, metrics
from bridge.audio import remains
from bridge.audio.journal import Journal
from bridge.errors import BridgeError, ConfigError
from bridge.twilio.media import CALL_SID

LOCK: Final = "lock"
MEMO: Final = "memo"
TRACKS: Final[tuple[events.Track, ...]] = ("inbound", "outbound")
BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
"""Linux's; others have none."""

TRIES: Final = 10
"""Somebody may remove our directory, taking it for a dead one's, in the moment before we have locked it."""

_NODE: Final = re.compile("[0-9a-f]{32}")

_logger = log.get(__name__)


class Folder:
    """The audio of one call, and a memo of what else is needed to go on with it. `files` as in `Journal`."""

    def __init__(self, path: Path, files: Executor | None = None) -> None:
        self.path = path
        self.files = files
        self.call_sid, _, self.id = path.name.partition(".")
        self._known = False  # it has a memo

    def journal(self, track: events.Track) -> Journal:
        """The journal of a track, with what is in it already."""
        return Journal(self.path / track, self.files)

    def tracks(self) -> list[events.Track]:
        """The tracks that have a journal."""
        return [track for track in TRACKS if (self.path / track).is_dir()]

    def write(self, memo: bytes) -> None:
        """Keep the memo, in place of the last one: a reader finds the one or the other.

        The first is there on return, before any audio: nobody could go on with audio alone.
        """
        if self.files is None or not self._known:
            self._known = True
            self._write(memo)
        else:
            self.files.submit(self._write, memo)

    def _write(self, memo: bytes) -> None:
        fresh = self.path / f"{MEMO}.new"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(fresh, "wb", opener=_private) as file:
                file.write(memo)
            fresh.replace(self.path / MEMO)
        except OSError as error:
            _refused(self.path, error)

    def read(self) -> bytes:
        """The memo; empty if there is none. Raises `OSError` when it cannot be read now."""
        try:
            return (self.path / MEMO).read_bytes()
        except FileNotFoundError:
            return b""

    def begin(self, track: events.Track) -> int:
        """Where a track's journal begins on the call's clock, in samples. Blocks. Raises `OSError`."""
        return remains.read(self.path / track).seams.clock(0)

    def cut(self, track: events.Track, clock: int) -> None:
        """Forget what a track's journal has from `clock` on, in samples of the call. Blocks. Raises `OSError`."""
        remains.cut(self.path / track, clock)

    def discard(self) -> None:
        """Remove all of it. Blocks. Raises `BridgeError`."""
        try:
            while self.path.exists():
                with contextlib.suppress(FileNotFoundError):  # somebody else removes it at the same time
                    shutil.rmtree(self.path)
        except OSError as error:
            why = error.strerror or error
            raise BridgeError(f"{self.path} could not be removed ({why}): remove it by hand") from error


async def discard(folder: Folder) -> None:
    """Remove a folder without blocking, after whatever else is to be done with its files; what cannot be removed is logged.

    Who is cancelled meanwhile does not keep it from being removed.
    """
    try:
        await asyncio.shield(asyncio.get_running_loop().run_in_executor(folder.files, folder.discard))
    except BridgeError as error:
        _logger.error("journal_not_removed", call_sid=folder.call_sid, error=str(error))


class Journals:
    """The folders below `root` that belong to this process, which is `node` (32 hexadecimal digits). `with` holds its lock."""

    def __init__(self, root: Path, node: str) -> None:
        self.root = root
        self.files = ThreadPoolExecutor(1, thread_name_prefix="journals")
        """Makes and removes the files of all journals; see `Journal`."""
        self._own = root / node
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make and lock this process's directory. What the disk refuses is logged: audio then stays in memory.

        Raises `ConfigError` for a root that can never be used.
        """
        try:
            for _ in range(TRIES):
                self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    self._lock = _locked(self._own)
                    break
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise ConfigError(
                f"Audio cannot be kept in {self.root}: {error.strerror}. Make it a directory of this user's, or name another in journal.path."
            ) from error
        except OSError as error:
            _refused(self._own, error)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the directory up: what is left in it is the next process's."""
        self.files.shutdown()
        if self._lock is None:
            return
        with contextlib.suppress(OSError):  # calls are left in it
            _remove_empty(self._own)
        os.close(self._lock)
        self._lock = None

    def folder(self, call_sid: str) -> Folder:
        """A new folder for a call; it is made when something is put into it."""
        return Folder(self._own / f"{call_sid}.{secrets.token_hex(8)}", self.files)

    def own(self) -> list[Folder]:
        """What lies in this process's directory, of live calls and of others. Blocks, though not for long."""
        if self._lock is None:
            return []
        try:
            return [Folder(path, self.files) for path in sorted(self._own.iterdir()) if _is_call(path)]
        except OSError as error:
            _refused(self._own, error)
            return []

    def adopt(self) -> list[Folder]:
        """Take over the calls of processes that are no more. Blocks, though not for long: nothing is read."""
        if self._lock is None:
            return []
        try:
            nodes = sorted(path for path in self.root.iterdir() if _NODE.fullmatch(path.name))
        except OSError as error:
            _refused(self.root, error)
            return []
        return [folder for node in nodes if node != self._own for folder in self._adopt_from(node)]

    def hold(self, ids: Mapping[str, str]) -> list[str]:
        """Those calls of which the folder with that id is on this machine, whoever has it. Blocks, though not for long."""
        found = {path.name for path in self.root.glob("*/*")}
        return [call_sid for call_sid, id_ in ids.items() if f"{call_sid}.{id_}" in found]

    def erase(self, call_sid: str) -> bool:
        """Remove all audio of a call, also what other processes have of it; whether there was any.

        Blocks. Raises `BridgeError`.
        """
        found = [Folder(path) for path in self.root.glob(f"*/{call_sid}.*")]
        for folder in found:
            folder.discard()
        return bool(found)

    def _adopt_from(self, node: Path) -> Iterator[Folder]:
        try:
            lock = _locked(node)
        except (BlockingIOError, FileNotFoundError):
            return  # its process lives, or somebody else was faster
        except OSError as error:
            _refused(node, error)
            return
        try:
            for path in sorted(node.iterdir()):
                try:
                    if _is_call(path):
                        yield Folder(path.rename(self._own / path.name), self.files)
                except OSError as error:
                    _refused(path, error)
            _remove_empty(node)
        except OSError as error:
            _refused(node, error)
        finally:
            os.close(lock)


@functools.cache
def boot() -> str:
    """Which run of this machine it is: as long as it is the same, so is the monotonic clock. Empty if not known."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return ""


def _is_call(path: Path) -> bool:
    return bool(CALL_SID.fullmatch(path.name.partition(".")[0])) and path.is_dir()


def _locked(directory: Path) -> int:
    """A descriptor that holds the directory's lock. Raises `OSError`: somebody else has it, or it was removed."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            raise FileNotFoundError(f"{directory} was removed")
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_empty(directory: Path) -> None:
    """Remove a directory with nothing but its lock in it, which the caller holds."""
    if [path.name for path in directory.iterdir()] == [LOCK]:
        (directory / LOCK).unlink()
        directory.rmdir()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _refused(path: Path, error: OSError) -> None:
    metrics.JOURNAL_REFUSALS.inc()
    _logger.error("journal_file_refused", directory=str(path), error=error.strerror or str(error))
