"""One of this program's own commands in a process of its own, for as long as the demo needs it."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import bridge
from bridge.errors import BridgeError

STOP_S: Final = 8.0
"""An idle command ends within 5 s of SIGTERM."""

_LINE: Final = 1 << 20
_KEPT_LINES: Final = 50
_SETTINGS: Final = ("BRIDGE_", "TWILIO_", "BASETEN_")
"""Environment variables that would change the demo's own configuration begin like this."""


class Child:
    """`whisper-bridge ARGUMENTS`. Its log is read for the `listening` line and for what it says at the end."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listening: asyncio.Future[Mapping[str, Any]] | None = None
        self._last: deque[str] = deque(maxlen=_KEPT_LINES)

    @property
    def name(self) -> str:
        """The command, as one would type it."""
        return f"whisper-bridge {self._arguments[0]}"

    async def start(self, timeout: float) -> Mapping[str, Any]:
        """Start it; returns its `listening` log line. Raises BridgeError if it ends or takes too long."""
        root = str(Path(bridge.__file__).parent.parent)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        # -P and the path: a folder `bridge` in the current directory must not be taken for this package.
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
        self._listening = asyncio.get_running_loop().create_future()
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "bridge", *self._arguments,
            stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, env=environment, limit=_LINE,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then ends this in order
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(self._process))
        try:
            async with asyncio.timeout(timeout):
                waited: set[asyncio.Future[Any]] = {self._listening, self._reading}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise BridgeError(f"{self.name} did not begin to listen within {timeout:.0f} s.") from None
        if not self._listening.done():
            raise BridgeError(await self.last_words())
        return self._listening.result()

    async def ended(self) -> None:
        """Wait for its end."""
        if self._reading is not None:
            await asyncio.wait({self._reading})

    async def last_words(self) -> str:
        """The sentence with which it ended."""
        code = await self._process.wait() if self._process else None
        for line in reversed(self._last):
            said = line.removeprefix("whisper-bridge: ").strip()
            if said and not said.startswith("{"):
                return said
        return f"{self.name} ended with exit code {code}."

    async def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL if it does not listen."""
        if self._process is None or self._reading is None:
            return
        try:
            if self._process.returncode is None:
                self._process.terminate()
            async with asyncio.timeout(STOP_S):
                await self._process.wait()
        except TimeoutError:
            self.kill()
        finally:
            self.kill()
            await self._process.wait()
            await asyncio.wait({self._reading})

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _read(self, process: Process) -> None:
        """Its log, to the end; what nobody reads would block it."""
        if process.stderr is None:
            return
        while True:
            try:
                line = (await process.stderr.readline()).decode(errors="replace")
            except ValueError:
                continue  # a line beyond any log line's length
            if not line:
                return
            self._last.append(line.rstrip())
            entry = _entry(line)
            if entry.get("event") == "listening" and self._listening and not self._listening.done():
                self._listening.set_result(entry)


def _entry(line: str) -> Mapping[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
