"""One machine: a bridge on its SQLite outbox is killed again and again, wherever it hurts.

Half of the deaths lie at an exact place (`tests/chaos/death.py`), the others at a random time in the worker's
life, its start included. Now and then the receiver is not there, hangs, or answers 503, for as long as a few
lives take. Nothing that a publish acknowledged may be missing in the end, and every call's events come in
order, with at most one duplicate for each call and kill.
"""

import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from bridge.local.receiver import Answer, Receiver
from tests.chaos.death import PLACES
from tests.chaos.history import History, check
from tests.chaos.port import free_port
from tests.chaos.worker import SECRET, Spec
from tests.chaos.workers import Workers

LATEST_S: Final = 1.5
"""One that was to die by its own hand is killed then: its place was not reached."""

NTH: Final = 40
"""At the latest at this commit, POST or acknowledgement of its life it dies there."""

LIVES: Final = 3
"""How many workers an outage of the receiver lasts."""

DRAIN_S: Final = 90.0
"""A lane that met the last outage may be in the middle of its backoff."""

SLOW: Final = Answer(delay_s=0.01)
"""So that a POST is often under way when its worker dies."""

OUTAGES: Final = (None, Answer(manner="hang"), Answer(503))
"""How the receiver fails: it is not there, or it answers so."""


@dataclass(slots=True)
class Figures:
    """What happened."""

    kills: int = 0
    exact: Counter[str] = field(default_factory=Counter)
    """Deaths at their very place."""
    outages: int = 0
    history: History = field(default_factory=History)

    def __str__(self) -> str:
        return (
            f"{self.kills} kills ({self.exact.total()} at exact places), {self.outages} outages, "
            f"{self.history}, integrity ok"
        )


async def run(
    directory: Path,
    *,
    kills: int = 200,
    outages: int = 10,
    calls: int = 20,
    life_s: float = 0.8,
    seed: int = 1,
) -> Figures:
    """Kill a bridge on one machine, and have its receiver fail. Who is killed from outside lives `life_s` at most."""
    store = directory / "outbox"
    receiver = Receiver(SECRET, port=free_port())
    spec = Spec(
        store=f"sqlite://{store}", endpoint=receiver.url, calls=[f"CA{n}" for n in range(calls)], seed=kills
    )
    random = Random(seed)
    figures = Figures()
    places: list[int] = []
    is_open = False
    async with Workers(directory) as workers:
        try:
            for number in range(kills):
                outage, lives = divmod(number, kills // outages)
                fails = 1 <= lives <= LIVES
                answer = OUTAGES[outage % len(OUTAGES)] if fails else SLOW
                figures.outages += lives == 1
                is_open = await _turn(receiver, answer, is_open=is_open)
                place = "" if fails or number % 2 else PLACES[number // 2 % len(PLACES)]
                life = _exact(spec, place, random) if place else spec
                most_s = LATEST_S if place else random.uniform(0, life_s)
                figures.exact[place] += await _lives(workers, replace(life, seed=number), most_s)
                figures.kills += 1
                places.append(len(receiver.received))
            is_open = await _turn(receiver, SLOW, is_open=is_open)
            await workers.drain(await workers.start(spec), timeout=DRAIN_S)
        finally:
            await _turn(receiver, None, is_open=is_open)
    workers.require()
    _require_integrity(store / "outbox.sqlite3")
    figures.history = check(workers.acknowledged(), receiver.received, kills=places)
    figures.history.require()
    return figures


async def _turn(receiver: Receiver, answer: Answer | None, *, is_open: bool) -> bool:
    """Let the receiver answer so, or with None not be there; whether it is there now."""
    if answer is not None:
        receiver.default = answer
    if is_open and answer is None:
        await receiver.__aexit__()
    elif not is_open and answer is not None:
        await receiver.__aenter__()
    return answer is not None


def _exact(spec: Spec, place: str, random: Random) -> Spec:
    """The worker that dies there by its own hand."""
    checkpoint = place == "in checkpoint"
    # A commit takes some 0.3 ms, nearly all of it waiting for the disk.
    delay_s = random.uniform(0, 0.003 if checkpoint else 0.0004)
    return replace(spec, place=place, nth=random.randint(1, 2 if checkpoint else NTH), delay_s=delay_s)


async def _lives(workers: Workers, spec: Spec, most_s: float) -> bool:
    """One life; whether it ended by itself, before it was killed after `most_s`."""
    worker = await workers.start(spec)
    try:
        async with asyncio.timeout(most_s):
            await asyncio.shield(worker.status)
    except TimeoutError:
        await workers.kill(worker)
        return False
    return True


def _require_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        problems = connection.execute("pragma integrity_check").fetchall()
        assert problems == [("ok",)], f"SQLite says of the file: {problems[0][0]}"
        (pending,) = connection.execute("select count(*) from events where state <> 'done'").fetchone()
        assert pending == 0, f"{pending} events are in the file as not delivered, but the outbox says none is"
