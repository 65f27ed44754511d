import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bridge.audio import mulaw
from bridge.audio.journal import Journal, Unreadable
from bridge.audio.tick import BURST, PERIOD_S, Tick
from bridge.audio.upsample import FRAME, FRAME_OUT


class Recorder:
    """A source without a socket: takes all that is there, and keeps what it was given."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.cursor = 0
        self.frames: list[bytes] = []
        self.largest = 0
        self.errors: list[Unreadable] = []
        self.limit: Callable[[int], int | None] = lambda frames: frames

    def due(self, now: float) -> int | None:
        assert now > 0
        frames = (self.journal.end - self.cursor) // FRAME
        return self.limit(frames) if frames else None

    def send(self, frames: NDArray[np.int16], peak: int) -> None:
        assert peak == frames.max()
        self.largest = max(self.largest, len(frames))
        self.frames.extend(frame.tobytes() for frame in frames)
        self.cursor += len(frames) * FRAME

    def unreadable(self, error: Unreadable) -> None:
        self.errors.append(error)


def noise(seed: int, frames: int) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, frames * FRAME, dtype=np.uint8).tobytes()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(PERIOD_S)


async def whole(directory: Path, audio: bytes) -> bytes:
    """The output when all audio is there at once."""
    tick, source = Tick(), Recorder(Journal(directory))
    source.journal.append(audio)
    tick.ready(source)
    await until(lambda: source.cursor == len(audio))
    tick.close()
    source.journal.close(delete=True)
    return b"".join(source.frames)


async def test_every_frame_has_512_samples_and_the_clock_stops_when_nothing_is_left(tmp_path: Path) -> None:
    tick, source = Tick(), Recorder(Journal(tmp_path / "track"))
    source.journal.append(noise(1, 3) + b"\xff" * 100)
    tick.ready(source)
    await until(lambda: len(source.frames) == 3)
    await asyncio.sleep(2 * PERIOD_S)
    assert {len(frame) for frame in source.frames} == {2 * FRAME_OUT}
    assert tick._timer is None
    tick.close()
    source.journal.close(delete=True)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 700), min_size=1, max_size=25),
    others=st.integers(0, 20),
)
def test_output_is_bit_identical_however_the_input_is_cut_and_batched(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int], others: int
) -> None:
    directory = tmp_path_factory.mktemp("tick")

    async def scenario() -> None:
        audio = noise(seed, 12)
        expected = await whole(directory / "whole", audio)
        tick, source = Tick(), Recorder(Journal(directory / "cut"))
        neighbours = [Recorder(Journal(directory / str(n))) for n in range(others)]
        for number, neighbour in enumerate(neighbours):
            neighbour.journal.append(noise(number, 1 + number % 3))
            tick.ready(neighbour)
        done = 0
        for number in range(10_000):
            cut = cuts[number % len(cuts)]
            source.journal.append(audio[done : done + cut])
            done += cut
            tick.ready(source)
            if number % 3 == 0:
                await asyncio.sleep(0)
            if done >= len(audio):
                break
        await until(lambda: source.cursor == len(audio))
        tick.close()
        for each in (source, *neighbours):
            each.journal.close(delete=True)
        assert b"".join(source.frames) == expected

    asyncio.run(scenario())


async def test_a_backlog_is_taken_in_bursts_so_that_live_audio_is_not_delayed(tmp_path: Path) -> None:
    tick = Tick()
    behind, live = Recorder(Journal(tmp_path / "behind")), Recorder(Journal(tmp_path / "live"))
    behind.journal.append(noise(1, 500))
    live.journal.append(noise(2, 1))
    tick.ready(behind)
    tick.ready(live)
    await until(lambda: bool(live.frames))
    assert len(behind.frames) <= 2 * BURST
    await until(lambda: len(behind.frames) == 500)
    assert behind.largest <= BURST
    tick.close()
    for source in (behind, live):
        source.journal.close(delete=True)


async def test_a_source_that_is_held_back_is_asked_again(tmp_path: Path) -> None:
    tick, source = Tick(), Recorder(Journal(tmp_path / "track"))
    source.journal.append(noise(1, 2))
    source.limit = lambda _: 0
    tick.ready(source)
    await asyncio.sleep(3 * PERIOD_S)
    assert not source.frames
    source.limit = lambda frames: frames
    await until(lambda: len(source.frames) == 2)
    tick.close()
    source.journal.close(delete=True)


@pytest.mark.parametrize("damage", ["gone", "short"])
async def test_a_journal_that_cannot_be_read_waits_and_stops_nobody(tmp_path: Path, damage: str) -> None:
    tick = Tick()
    broken, well = Recorder(Journal(tmp_path / "broken")), Recorder(Journal(tmp_path / "well"))
    broken.journal.append(noise(1, 600))
    file = tmp_path / "broken" / "000000.ulaw"
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:100])
    well.journal.append(bytes([mulaw.SILENCE]) * FRAME)
    tick.ready(broken)
    tick.ready(well)
    await until(lambda: bool(well.frames) and bool(broken.errors))
    assert well.frames == [bytes(2 * FRAME_OUT)]
    assert broken.frames == []
    file.write_bytes(content)
    await until(lambda: len(broken.frames) == 600)
    tick.close()
    for source in (broken, well):
        source.journal.close(delete=True)


@pytest.mark.parametrize("method", ["due", "send"])
async def test_a_defect_in_one_source_starves_no_other(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a defect")

    tick = Tick()
    defect, well = Recorder(Journal(tmp_path / "defect")), Recorder(Journal(tmp_path / "well"))
    monkeypatch.setattr(defect, method, fail)
    for source in (defect, well):
        source.journal.append(noise(1, 20))
        tick.ready(source)
    await until(lambda: len(well.frames) == 20)
    await asyncio.sleep(2 * PERIOD_S)
    assert tick._timer is None
    tick.close()
    for source in (defect, well):
        source.journal.close(delete=True)
