"""A process of the benchmark: started on its own processors, measured from outside, ended by its id."""

import asyncio
import contextlib
import json
import os
import sys
from asyncio import subprocess
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Collection, Mapping
from typing import Final, Self

from bridge.errors import BridgeError
from bridge.local.load.process import Process

START_S: Final = 30.0
STOP_S: Final = 10.0
LINE_LIMIT: Final = 1 << 28
"""Bytes of one answer: 11 for each frame of a thousand calls of ten minutes, and room."""

_SETTINGS: Final = ("BRIDGE_", "TWILIO_", "BASETEN_")  # what would change the bridge's configuration


class Child:
    """`python -m ARGUMENTS`: `async with Child("bridge", "serve", cpus={0}) as child`."""

    def __init__(
        self, *arguments: str, cpus: Collection[int], environment: Mapping[str, str] | None = None
    ) -> None:
        self.port = 0
        """Where it listens, as its log says; 0: it takes orders, and no connections."""
        self._arguments = arguments
        self._cpus = cpus
        self._environment = dict(environment or {})
        self._process: subprocess.Process
        self._last: deque[str] = deque(maxlen=20)
        self._listening = asyncio.Event()
        self._reading: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *self._arguments),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=environment | self._environment,
            limit=LINE_LIMIT,
        )
        with contextlib.suppress(ProcessLookupError):  # it has ended already, which is found below
            os.sched_setaffinity(self._process.pid, self._cpus)  # so early, it holds for threads to come
        self._reading = asyncio.create_task(self._read())
        listening = asyncio.create_task(self._listening.wait())
        try:
            either = {listening, self._reading}
            await asyncio.wait(either, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            self._require_listening()
        except BaseException:
            await self.stop()
            raise
        finally:
            listening.cancel()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that it has used, all threads, user and system."""
        return Process(self._process.pid).cpu_s

    @property
    def memory_kb(self) -> tuple[int, int]:
        """Resident kB: all of it, and what is not backed by files (the journals are)."""
        return Process(self._process.pid).memory_kb

    @property
    def last_line(self) -> str:
        """What its log said last."""
        return self._last[-1] if self._last else "nothing"

    async def ask(self, question: str = "") -> bytes:
        """Write this line to its stdin, and take the one that it answers on stdout. Raises `BridgeError`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._process.stdin.write(question.encode() + b"\n")
            async with asyncio.timeout(STOP_S):
                if line := await self._process.stdout.readline():
                    return line
        raise BridgeError(f"{self._arguments[0]} does not answer; it said last: {self.last_line}")

    async def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL if it does not listen."""
        process = self._process
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            await self._reading

    def _require_listening(self) -> None:
        if not self._listening.is_set():
            raise BridgeError(f"{self._arguments[0]} did not begin to listen: {' '.join(self._last)}")

    async def _read(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.readline():
            self._last.append(line.decode(errors="replace").strip())
            if not self._listening.is_set() and b'"listening"' in line:
                self.port = json.loads(line)["port"]
                self._listening.set()
