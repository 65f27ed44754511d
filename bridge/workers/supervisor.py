"""The process that the operator starts when there are several workers: it starts them, and leads connections to them.

It owns what there is once: the socket that is listened on, and the SQLite outbox if that is the one. It knows nothing
of calls. When it dies, so do the workers.
"""

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bridge import log, metrics
from bridge.config import Config
from bridge.errors import BridgeError, UsageError
from bridge.listener import announce, listening
from bridge.outbox.host import Host
from bridge.outbox.store import outbox_of
from bridge.signals import Signals
from bridge.workers import child as told
from bridge.workers import figures
from bridge.workers.balance import Report, rank
from bridge.workers.child import Child, Failed
from bridge.workers.company import DIED, opened
from bridge.workers.entrance import Entrance
from bridge.workers.line import Lost
from bridge.workers.respawn import pause_s

if TYPE_CHECKING:
    from bridge.workers.figures import Family

ENDING_S: Final = 200.0
"""How long after `server.drain_deadline_s` a worker may take to end: the last finals wait for a Whisper that is away."""

HURRY_S: Final = 60.0
"""The same after a second signal."""

LOOK_S: Final = 1.0
"""How often it is looked after the workers; each reports as often."""

COUNT_S: Final = 1.0
"""How long a worker may take to say what it has counted."""

_logger = log.get(__name__)


async def supervise(config: Config) -> None:
    """Serve with workers until SIGTERM or SIGINT, and return when all have ended in order. Raises `BridgeError`."""
    config.require_serving()
    with listening(config) as listener, Signals() as signals:
        async with AsyncExitStack() as opening:
            host = None
            if not config.outbox.shared:
                outbox = await opening.enter_async_context(opened(outbox_of(config)))
                host = await opening.enter_async_context(Host(outbox))
            await Supervisor(config, listener, host).run(signals)


class Supervisor:
    """`run` is called once. `host` has the outbox, unless workers open it themselves."""

    def __init__(self, config: Config, listener: socket.socket, host: Host | None) -> None:
        self._config = config
        self._entrance = Entrance(listener, self._ready)
        self._host = host
        self._children: dict[int, Child] = {}
        self._open = False
        """All workers were ready once."""
        self._draining = asyncio.Event()
        self._gone = asyncio.Event()
        self._news = asyncio.Event()
        self._buried: list[str] = []  # nodes of the dead, of which nobody was told yet
        self._problems: list[str] = []
        self._counted: Sequence[Family] = ()  # by the dead

    async def run(self, signals: Signals) -> None:
        """Keep the workers running until a signal, and then until they have ended."""
        keepers = [
            asyncio.create_task(self._keep(number + 1)) for number in range(self._config.server.processes)
        ]
        others = [asyncio.create_task(self._begin()), asyncio.create_task(self._end(signals))]
        others += map(asyncio.create_task, (self._see_them_gone(keepers), self._look_after_them()))
        try:
            done, _ = await asyncio.wait((*keepers, *others), return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            self._entrance.close()
            for task in (*keepers, *others):
                task.cancel()
            await asyncio.gather(*keepers, *others, return_exceptions=True)
        if self._problems:
            raise BridgeError(f"{self._problems[0]}: they go on with the next start")

    async def _see_them_gone(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        await asyncio.wait(keepers)
        self._gone.set()
        self._news.set()

    async def _look_after_them(self) -> None:
        """Kill those that hang while another one works: it has their calls by then. When all hang it is the machine."""
        while not self._gone.is_set():
            await _first(self._gone.wait(), timeout_s=LOOK_S)
            hanging = [child for child in self._children.values() if child.hangs()]
            for child in hanging if len(hanging) < len(self._ready()) else ():
                _logger.error("worker_killed", worker=child.number, reason="it hangs")
                child.kill()

    async def _begin(self) -> None:
        """Lead connections to the workers as soon as all are ready for the first time."""
        while not self._gone.is_set() and len(self._ready()) < self._config.server.processes:
            self._news.clear()
            await self._news.wait()
        if self._gone.is_set():
            return
        self._open = True
        self._entrance.open()
        announce(self._config, self._entrance.port)

    async def _end(self, signals: Signals) -> None:
        """Have the workers end when a signal comes; those that do not are killed."""
        await _first(signals.stop.wait(), self._gone.wait())
        self._draining.set()
        self._tell(told.DRAIN)
        await _first(
            signals.hurry.wait(), self._gone.wait(), timeout_s=self._config.server.drain_deadline_s + ENDING_S
        )
        self._tell(told.HURRY)
        await _first(self._gone.wait(), timeout_s=HURRY_S)
        for child in self._children.values():
            _logger.error("worker_killed", worker=child.number, reason="it does not end")
            child.kill()

    async def _keep(self, number: int) -> None:
        """Have a worker of that number, one after the other, until the end."""
        pause = 0.0
        while not self._draining.is_set():
            began = time.monotonic()
            try:
                child = await self._started(number)
            except OSError as error:
                self._not_started(number, error)
                pause = pause_s(pause, 0.0)
                await _first(self._draining.wait(), timeout_s=pause)
                continue
            try:
                code = await child.ended()
            finally:
                ready, child.ready = child.ready, False
                await child.close()
                del self._children[number]
                self._bury(child)
            if self._draining.is_set():
                if code and ready:
                    self._problems.append(f"worker {number} {_how(code)} before its calls were over")
                return
            self._lost(child, code, ready=ready)
            pause = pause_s(pause, time.monotonic() - began)
            await _first(self._draining.wait(), timeout_s=pause)

    async def _started(self, number: int) -> Child:
        child = Child(number, time.monotonic())
        child.answers = {
            told.READY: partial(self._is_ready, child),
            told.FAILED: partial(_has_failed, child),
            told.REPORT: partial(_has_reported, child),
            told.COUNTED: partial(_has_counted, child),
            told.FIGURES: partial(self._figures, child),
            told.SIBLINGS: partial(self._ask, child),
            told.OTHERS: partial(self._hand_on, child),
        }
        outbox = None if self._host is None else await self._host.connect()
        await child.start(self._config, port=self._entrance.port, outbox=outbox)
        self._children[number] = child
        if self._draining.is_set():
            child.line.tell(told.DRAIN)
        return child

    def _not_started(self, number: int, error: OSError) -> None:
        """The system had nothing to start a worker with. Raises `BridgeError` when nobody has waited for it yet."""
        why = error.strerror or str(error)
        if not self._open:
            raise BridgeError(f"worker {number} could not be started: {why}") from None
        metrics.WORKERS_LOST.inc()
        _logger.error("worker_not_started", worker=number, error=why)

    def _lost(self, child: Child, code: int, *, ready: bool) -> None:
        """A worker has ended that was to go on. Raises `BridgeError` for one that never could, while all begin."""
        if not ready and not self._open:
            if child.failed is None:
                raise BridgeError(
                    f"worker {child.number} {_how(code)} before it could take calls: its log says why"
                )
            kind = UsageError if child.failed.code == UsageError.exit_code else BridgeError
            raise kind(child.failed.sentence)
        if code or not ready:
            metrics.WORKERS_LOST.inc()
        error = child.failed.sentence if child.failed else ""
        _logger.warning("worker_lost", worker=child.number, pid=child.pid, how=_how(code), error=error)

    def _bury(self, child: Child) -> None:
        """Keep what it has counted, and have another one see to its calls."""
        self._counted = figures.combined(self._counted, figures.lasting(child.figures))
        self._buried.append(child.node)
        self._tell_of_the_dead()

    def _tell_of_the_dead(self) -> None:
        for heir in self._ready()[:1]:
            for node in self._buried:
                heir.line.tell(DIED, node)
            self._buried.clear()

    def _ready(self) -> list[Child]:
        """Those that take connections, the one first that is to have the next."""
        now = time.monotonic()
        ready = (child for child in self._children.values() if child.ready and not child.closed)
        return sorted(ready, key=lambda child: rank(child.standing, now))

    def _tell(self, what: str) -> None:
        for child in self._children.values():
            child.line.tell(what)

    async def _is_ready(self, child: Child, _: Any) -> None:
        child.ready = True
        _logger.info("worker_ready", worker=child.number, pid=child.pid)
        self._news.set()
        self._tell_of_the_dead()
        if self._open:
            self._entrance.open()

    async def _figures(self, child: Child, counted: Any) -> bytes:
        """All figures, from one that has brought its own."""
        await _has_counted(child, counted)
        own = figures.without(figures.read(), figures.COUNTED_TWICE)
        await asyncio.gather(*(_count(each) for each in self._ready() if each is not child))
        others = [each.figures for each in self._children.values() if each is not child]
        return figures.text(figures.combined(child.figures, own, self._counted, *others))

    async def _ask(self, child: Child, asked: Any) -> list[Any]:
        """What the other workers say."""
        what, about, timeout_s = asked
        others = [each for each in self._ready() if each is not child]
        answers = await asyncio.gather(
            *(each.line.ask(what, about, timeout_s=timeout_s) for each in others), return_exceptions=True
        )
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Lost):
                raise answer
        return [answer for answer in answers if answer is not None and not isinstance(answer, BaseException)]

    async def _hand_on(self, child: Child, said: Any) -> None:
        """One says something to all others."""
        what, about = said
        for each in self._ready():
            if each is not child:
                each.line.tell(what, about)


async def _has_failed(child: Child, failed: Any) -> None:
    child.failed = msgspec.convert(failed, Failed)


async def _has_reported(child: Child, report: Any) -> None:
    child.heard(msgspec.convert(report, Report), time.monotonic())


async def _has_counted(child: Child, counted: Any) -> None:
    child.counted = counted


async def _count(child: Child) -> None:
    """Have it say what it has counted; one that does not counts with what it said last."""
    with contextlib.suppress(Lost):
        if (counted := await child.line.ask(told.COUNT, timeout_s=COUNT_S)) is not None:
            await _has_counted(child, counted)


async def _first(*waits: Awaitable[Any], timeout_s: float | None = None) -> None:
    """Return when one of them does, or the time is up."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _how(code: int) -> str:
    """How a process ended."""
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
