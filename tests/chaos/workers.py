"""The parent's side: starts workers through the nursery, signals them, and reads what they told."""

import asyncio
import contextlib
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

from tests.chaos.history import Acknowledged
from tests.chaos.worker import Spec

ROOT: Final = Path(__file__).parents[2]
START_S: Final = 30.0
"""For the nursery's imports, on a machine that is busy."""

END_S: Final = 10.0
TELL_S: Final = 30.0
KILLED: Final = (0, -signal.SIGKILL, -signal.SIGALRM)
"""How a worker may end: in order, killed, or by its own hand."""

CRASHES: Final = ("pump_crashed", "lane_crashed")
"""Lines of the log that no fault from outside may cause."""


@dataclass(slots=True)
class Worker:
    """A process that was started."""

    spec: Spec
    pid: int
    status: asyncio.Future[int]
    """How it ended, once its files and locks are free: exit code, or the signal's number below zero."""


class Workers:
    """Every worker of a scenario: `async with Workers(directory) as workers`. All end with it."""

    def __init__(self, directory: Path) -> None:
        self.all: list[Worker] = []
        """Every one that was ever started."""
        self._directory = directory
        self._running: dict[int, Worker] = {}
        self._process: Process
        self._reading: asyncio.Task[None]
        self._started: asyncio.Future[int]
        self._next: Worker
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.chaos.nursery", stdin=PIPE, stdout=PIPE, cwd=ROOT,
            start_new_session=True,  # Ctrl-C is the parent's, which then ends the nursery in order
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            await self._reading

    async def start(self, spec: Spec) -> Worker:
        """Start a worker; its files get names of their own. Requires that no other one ended wrongly."""
        self._require_ends()
        loop = asyncio.get_running_loop()
        stem = self._directory / f"worker-{len(self.all)}"
        worker = Worker(replace(spec, report=f"{stem}.jsonl", log=f"{stem}.log"), 0, loop.create_future())
        self.all.append(worker)
        async with asyncio.timeout(START_S), self._starting:
            self._started = loop.create_future()
            self._next = worker
            self._send({"start": asdict(worker.spec)})
            await self._started
        return worker

    def signal(self, worker: Worker, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        self._send({"signal": [worker.pid, int(number)]})

    async def kill(self, worker: Worker) -> None:
        """End it with SIGKILL, and wait until everything that it held is free."""
        self.signal(worker, signal.SIGKILL)
        async with asyncio.timeout(END_S):
            await asyncio.shield(worker.status)

    async def drain(self, *workers: Worker, timeout: float) -> None:
        """Let them publish no more, deliver what is left, and end. An AssertionError after `timeout` s."""
        for worker in workers:
            self.signal(worker, signal.SIGUSR1)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(asyncio.shield(worker.status) for worker in workers))
        except TimeoutError:
            raise AssertionError(f"what was left was not delivered within {timeout:.0f} s") from None
        self.require()
        killed = [worker.pid for worker in workers if worker.status.result()]
        assert not killed, f"workers {killed} were killed when they were to deliver what was left"

    async def until(self, worker: Worker, what: str, times: int) -> None:
        """Wait until the worker told `what` so often. An AssertionError if it does not within 30 s."""
        try:
            async with asyncio.timeout(TELL_S):
                while sum(1 for _ in self.told(what, worker)) < times:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(
                f"a worker did not tell {what!r} {times} times within {TELL_S:.0f} s"
            ) from None

    def acknowledged(self) -> Iterator[Acknowledged]:
        """Every event whose publish returned, of all workers."""
        return (Acknowledged(*told) for told in self.told("acknowledged"))

    def logged(self) -> Counter[str]:
        """How often the workers logged what."""
        return Counter(line for (line,) in self.told("log"))

    def told(self, what: str, *workers: Worker) -> Iterator[list[Any]]:
        """What these workers, or all, told of that kind."""
        for worker in workers or self.all:
            with contextlib.suppress(FileNotFoundError), Path(worker.spec.report).open("rb") as report:
                # A kill may have cut the last line short: then it was not told.
                lines = (json.loads(line) for line in report if line.endswith(b"\n"))
                yield from (told for kind, *told in lines if kind == what)

    def require(self) -> None:
        """Raise an AssertionError if a worker saw a promise broken, or ended otherwise than it had to."""
        for (sentence,) in self.told("broken"):
            raise AssertionError(sentence)
        self._require_ends()
        crashed = [line for line in CRASHES if self.logged()[line]]
        assert not crashed, f"a worker logged {crashed[0]}"

    def _require_ends(self) -> None:
        for worker in self.all:
            if worker.status.done() and worker.status.result() not in KILLED:
                log = Path(worker.spec.log)
                last = log.read_text(errors="replace").splitlines()[-1:] if log.exists() else []
                raise AssertionError(
                    f"a worker ended by itself with {worker.status.result()}: {''.join(last)}"
                )

    def _send(self, command: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            reply = json.loads(line)
            if "started" in reply:
                self._next.pid = reply["started"]
                self._running[self._next.pid] = self._next
                self._started.set_result(self._next.pid)
            else:
                pid, status = reply["ended"]
                self._running.pop(pid).status.set_result(status)
