"""A worker as its supervisor has it: a process, two sockets to it, and what is known of it."""

import asyncio
import contextlib
import errno
import os
import socket
import sys
import uuid
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

import bridge
from bridge.config import Config
from bridge.workers import door
from bridge.workers.balance import Report, Standing
from bridge.workers.figures import Family
from bridge.workers.line import Line
from bridge.workers.setup import Setup

if TYPE_CHECKING:
    from bridge.workers.company import Answer

DRAIN: Final = "drain"
"""Tells a worker to take no more calls, and to end when those that it has are over."""

HURRY: Final = "hurry"
"""Tells it to wait for nobody."""

SET_UP: Final = "set up"
READY: Final = "ready"
REPORT: Final = "report"
COUNTED: Final = "counted"
COUNT: Final = "count"
FIGURES: Final = "figures"
FAILED: Final = "failed"
SIBLINGS: Final = "siblings"
OTHERS: Final = "others"

GONE: Final = (errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN)
"""Errors of a door that nobody is behind any more. Others pass: too many descriptors are under way, or no memory."""

HANGING: Final = 30
"""Looks without a report after which a worker has to be killed: its calls have gone on elsewhere, its place is wanted.

Not seconds, as the machine may have stood still.
"""

GONE_S: Final = 5.0
"""How long a process may take to end after the kernel was told to end it."""


class Failed(msgspec.Struct, array_like=True, frozen=True):
    """Why a worker could not start."""

    sentence: str
    code: int
    """What `serve` exits with."""


class Child:
    """One life of one worker; `now` is monotonic, in seconds. To be started, and to be closed."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.node = uuid.uuid4().hex
        self.standing = Standing(now)
        self.ready = False
        """It takes calls, as far as it knows."""
        self.closed = False
        """It takes no connections any more: it is about to end."""
        self.failed: Failed | None = None
        self.counted: Any = []
        """Its figures as it told them last."""
        self._looks = 0  # since it reported last
        self.answers: Mapping[str, Answer] = {}
        """What it is answered."""
        self.line: Line
        self._door: socket.socket
        self._process: Process

    async def start(self, config: Config, *, port: int, outbox: socket.socket | None) -> None:
        """Start it. `outbox` is its socket to the outbox of this process, if that is the one that has it.

        Raises `OSError` when the system has no process or no descriptors for it; then there is nothing to close.
        """
        async with contextlib.AsyncExitStack() as ours, contextlib.AsyncExitStack() as theirs:
            if outbox is not None:
                theirs.enter_context(outbox)
            self._door, door_end = socket.socketpair(socket.AF_UNIX)
            ours.callback(self._door.close)
            theirs.enter_context(door_end)
            self._door.setblocking(False)  # noqa: FBT003 - the standard library's own signature
            line, line_end = socket.socketpair(socket.AF_UNIX)
            ours.callback(line.close)
            theirs.enter_context(line_end)
            self.line = Line(self.answers)
            await self.line.open(line)
            ours.push_async_callback(self.line.close)
            ends = [end.fileno() for end in (door_end, line_end, outbox) if end is not None]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "bridge.workers", *map(str, ends),
                stdin=DEVNULL, env=_environment(), pass_fds=ends,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then ends this in order
            )  # fmt: skip
            ours.pop_all()
        setup = Setup.of(config, self.number, node=self.node, port=port)
        self.line.tell(SET_UP, setup)

    @property
    def figures(self) -> list[Family]:
        """What it has counted, as far as it is known."""
        with contextlib.suppress(msgspec.ValidationError):  # of another version: the package was replaced
            return msgspec.convert(self.counted, list[Family])
        return []

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def take(self, connection: socket.socket, turn: int) -> bool:
        """Pass a connection on to it; False if it cannot be."""
        try:
            if not door.send(self._door, connection):
                return False
        except OSError as error:
            self.closed = error.errno in GONE
            return False
        self.standing.pass_on(turn)
        return True

    def heard(self, report: Report, now: float) -> None:
        """It said how it is."""
        self.standing.report, self.standing.heard_at = report, now
        self._looks = 0

    def hangs(self) -> bool:
        """Whether it takes calls, and has not reported for `HANGING` looks; to be asked once a second."""
        self._looks += self.ready and self.standing.report.taking
        return self._looks >= HANGING

    async def ended(self) -> int:
        """Wait for its end, and listen to it until then; its exit code, or the signal's number below zero."""
        await self.line.run()
        if self.line.garbled:
            self.kill()
        return await self._process.wait()

    def kill(self) -> None:
        """End it as nothing can be prepared for."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End it if it still runs, and give up what belongs to it."""
        if self._process.returncode is None:
            self.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GONE_S):
                    await self._process.wait()
        await self.line.close()
        self._door.close()


def _environment() -> Mapping[str, str]:
    """This process's, and where this package lies: a folder `bridge` elsewhere must not be taken for it."""
    root = str(Path(bridge.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
