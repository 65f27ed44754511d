"""pocketsphinx as an engine: a small pool of processes, each with a few loaded decoders.

An utterance keeps its decoder until its final and is decoded while the person speaks. When every
decoder is taken, utterances keep their audio and wait their turn. A process that dies is replaced, and
its utterances are decoded again from their audio.
"""

import asyncio
import itertools
import os
from collections import deque

from bridge.errors import BridgeError
from bridge.local.whisper.engine import EngineError, Options, Recognition
from bridge.local.whisper.sphinx_worker import Worker
from bridge.local.whisper.wire import Ask, Tell, decode_recognition
from bridge.log import get

MAX_PROCESSES = 4
DECODERS = 2
"""Decoders in a process. One second of speech takes a decoder about 0.15 s, so that two share a core with ease."""

MAX_WAITING = 64
"""Utterances that may wait for a decoder (each at most 30 s: under 1 MB); more are refused."""

MAX_ATTEMPTS = 3
"""Processes that may die of one utterance before it is given up."""

MAX_RESTARTS = 5
"""Processes that may die in a row without finishing an utterance before the engine stops starting new ones."""

GIVEN_UP = "The recogniser does not run any more"

_log = get(__name__)


class SphinxUtterance:
    """One utterance, waiting for a decoder or being decoded."""

    def __init__(self, engine: "SphinxEngine", number: int) -> None:
        self._engine = engine
        self.number = number
        # In the pieces it came in, so that a second attempt hears exactly what the first one heard.
        self._audio: list[bytes] = []
        self._partial: asyncio.Future[Recognition | None] | None = None
        self.ended = False
        self.attempts = 0
        self.worker: Worker | None = None
        self.result: asyncio.Future[Recognition] = asyncio.get_running_loop().create_future()

    def feed(self, pcm: bytes) -> None:
        """Take more audio: s16le, 16 kHz, mono. Never blocks."""
        self._audio.append(pcm)
        if self.worker:
            self.worker.ask(Ask.AUDIO, self.number, pcm)

    async def partial(self) -> Recognition | None:
        """What is understood so far; None while no decoder has been free for it."""
        if self.worker is None:
            return None
        self._partial = asyncio.get_running_loop().create_future()
        self.worker.ask(Ask.PARTIAL, self.number)
        return await self._partial

    async def final(self) -> Recognition:
        """What was said. Raises `EngineError`."""
        self.ended = True
        if self.worker:
            self.worker.ask(Ask.FINAL, self.number)
        return await self.result

    def cancel(self) -> None:
        """Nobody wants the result any more."""
        self.result.cancel()
        self.told_partial(None)
        self._engine.drop(self)

    def attach(self, worker: Worker) -> None:
        """Start, or start again, in this process."""
        self.attempts += 1
        self.worker = worker
        worker.ask(Ask.OPEN, self.number)
        for pcm in self._audio:
            worker.ask(Ask.AUDIO, self.number, pcm)
        if self.ended:
            worker.ask(Ask.FINAL, self.number)

    def detach(self) -> None:
        """The decoder is gone."""
        self.worker = None
        self.told_partial(None)

    def told_partial(self, recognition: Recognition | None) -> None:
        """The answer to the last `partial`."""
        partial, self._partial = self._partial, None
        if partial and not partial.done():
            partial.set_result(recognition)

    def told_final(self, recognition: Recognition) -> None:
        """The answer to `final`."""
        if not self.result.done():
            self.result.set_result(recognition)

    def fail(self, sentence: str) -> None:
        """There will be no result."""
        self.told_partial(None)
        if not self.result.done():
            self.result.set_exception(EngineError(sentence))
            self.result.exception()  # an utterance that is cancelled before its final never asks


class SphinxEngine:
    """The pool. `processes` defaults to one for each core, at most 4."""

    def __init__(self, processes: int | None = None, decoders: int = DECODERS) -> None:
        self._size = processes or min(os.cpu_count() or 1, MAX_PROCESSES)
        self._decoders = decoders
        self._workers: list[Worker] = []
        self._owners: set[asyncio.Task[None]] = set()
        self._waiting: deque[SphinxUtterance] = deque()
        self._deaths = 0
        self._given_up = False
        self._numbers = itertools.count(1)

    @property
    def name(self) -> str:
        """Says that this is not Whisper."""
        return "pocketsphinx (en-us)"

    async def open(self) -> None:
        """Start the processes and wait until every decoder is loaded. Raises `BridgeError`."""
        try:
            async with asyncio.TaskGroup() as starting:
                for _ in range(self._size):
                    starting.create_task(self._start())
        except ExceptionGroup as group:
            await self.close()
            raise BridgeError(f"pocketsphinx cannot be used: {group.exceptions[0]}") from group

    async def close(self) -> None:
        """End the processes. Utterances without a result fail."""
        owners, self._owners = self._owners, set()
        for owner in owners:
            owner.cancel()
        await asyncio.gather(*owners, return_exceptions=True)
        workers, self._workers = self._workers, []
        for worker in workers:
            for utterance in worker.utterances.values():
                utterance.fail("The recogniser was stopped")
            await worker.close()
        self._fail_waiting("The recogniser was stopped")

    def utterance(self, options: Options) -> SphinxUtterance:  # noqa: ARG002 - one language, no prompt
        """Begin an utterance. When too many are waiting already, its final raises `EngineError`."""
        utterance = SphinxUtterance(self, next(self._numbers) % 2**32)
        if self._given_up:
            utterance.fail(GIVEN_UP)
        elif len(self._waiting) >= MAX_WAITING:
            utterance.fail("The recogniser has too much to do")
        else:
            self._waiting.append(utterance)
            self._assign()
        return utterance

    def drop(self, utterance: SphinxUtterance) -> None:
        """Free the decoder, or the place in the queue, of an utterance that nobody wants."""
        if utterance.worker is not None:
            # One that was asked for its final gives its decoder back by telling it.
            if not utterance.ended:
                utterance.worker.ask(Ask.DROP, utterance.number)
                self._release(utterance.worker, utterance)
        elif utterance in self._waiting:
            self._waiting.remove(utterance)

    async def _start(self) -> None:
        worker = await Worker.start(self._decoders)
        self._workers.append(worker)
        owner = asyncio.create_task(self._own(worker))
        self._owners.add(owner)
        owner.add_done_callback(self._owners.discard)
        self._assign()

    async def _own(self, worker: Worker) -> None:
        """Hand out a process's answers until it dies, then replace it."""
        while told := await worker.told():
            kind, number, payload = told
            utterance = worker.utterances.get(number)
            if utterance is None:
                pass  # dropped meanwhile
            elif kind == Tell.PARTIAL:
                utterance.told_partial(decode_recognition(payload))
            elif kind == Tell.FINAL:
                self._deaths = 0
                self._release(worker, utterance)
                utterance.told_final(decode_recognition(payload))
        await self._replace(worker)

    async def _replace(self, worker: Worker) -> None:
        self._workers.remove(worker)
        exit_status = await worker.close()
        self._deaths += 1
        orphans = list(worker.utterances.values())
        _log.warning("recogniser_died", pid=worker.pid, exit_status=exit_status, utterances=len(orphans))
        for utterance in orphans:
            utterance.detach()
            if utterance.result.done():
                continue
            if utterance.attempts < MAX_ATTEMPTS:
                self._waiting.appendleft(utterance)
            else:
                utterance.fail("The recogniser failed on this utterance")
        self._assign()
        if self._deaths <= MAX_RESTARTS:
            try:
                return await self._start()
            except (BridgeError, OSError) as error:
                _log.exception("recogniser_not_restarted", error=str(error))
        if not self._workers:
            self._given_up = True
            self._fail_waiting(GIVEN_UP)
        return None

    def _assign(self) -> None:
        """Give waiting utterances to free decoders, of the least busy process first."""
        while self._waiting:
            worker = min(self._workers, key=lambda candidate: len(candidate.utterances), default=None)
            if worker is None or not worker.free:
                return
            utterance = self._waiting.popleft()
            worker.utterances[utterance.number] = utterance
            utterance.attach(worker)

    def _release(self, worker: Worker, utterance: SphinxUtterance) -> None:
        del worker.utterances[utterance.number]
        utterance.detach()
        self._assign()

    def _fail_waiting(self, sentence: str) -> None:
        while self._waiting:
            self._waiting.popleft().fail(sentence)
