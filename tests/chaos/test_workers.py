"""Workers end when they should, and only then; what they told is read as far as it is whole."""

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.death import PLACES
from tests.chaos.worker import Spec
from tests.chaos.workers import Worker, Workers


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A worker whose receiver is not there."""
    return Spec(store=f"sqlite://{tmp_path}/outbox", endpoint="http://127.0.0.1:9/", calls=["CA1"], seed=1)


async def ended(worker: Worker) -> int:
    async with asyncio.timeout(10):
        return await worker.status


async def test_none_outlives_the_scenario(tmp_path: Path, spec: Spec) -> None:
    async with Workers(tmp_path) as workers:
        stopped = await workers.start(spec)
        await workers.until(stopped, "acknowledged", 1)
        workers.signal(stopped, signal.SIGSTOP)
    assert await ended(stopped) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(stopped.pid, 0)
    workers.require()


async def test_one_that_ends_by_itself_is_told_of(tmp_path: Path, spec: Spec) -> None:
    (tmp_path / "file").touch()
    async with Workers(tmp_path) as workers:
        worker = await workers.start(replace(spec, store=f"sqlite://{tmp_path}/file"))
        await ended(worker)
        with pytest.raises(AssertionError, match=r"ended by itself with 1: .*ConfigError: The outbox cannot"):
            await workers.start(spec)


@pytest.mark.parametrize("place", PLACES[:3])
async def test_it_dies_where_it_is_told_to(tmp_path: Path, spec: Spec, place: str) -> None:
    async with Workers(tmp_path) as workers:
        worker = await workers.start(replace(spec, place=place, nth=3))
        assert await ended(worker) == (-signal.SIGALRM if place == "in commit" else -signal.SIGKILL)


async def test_a_line_that_was_cut_short_was_not_told(tmp_path: Path, spec: Spec) -> None:
    report = tmp_path / "report"
    report.write_text('["acknowledged", "CA1", 1, "id", "hash"]\n["broken", "a sentence"]\n["acknow')
    workers = Workers(tmp_path)
    workers.all.append(
        Worker(replace(spec, report=str(report)), 0, asyncio.get_running_loop().create_future())
    )
    assert [event.sequence for event in workers.acknowledged()] == [1]
    with pytest.raises(AssertionError, match="a sentence"):
        workers.require()
