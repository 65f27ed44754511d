import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from bridge.audio.upsample import FRAME
from bridge.audio.voice import Probability
from bridge.whisper import ear as module
from bridge.whisper.ear import Ear
from tests.doubles.numbered import sounds, speech


@pytest.fixture(autouse=True)
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.0)


@pytest.fixture
def ear() -> Iterator[Ear]:
    made = Ear(lambda: sounds)
    yield made
    made.close()


async def test_it_says_where_somebody_speaks(ear: Ear) -> None:
    words = speech(range(4))
    ((begin, end),) = await ear.listen(b"\xff" * 8000 + words + b"\xff" * 8000)
    assert abs(begin - 8000) <= FRAME
    assert abs(end - (8000 + 4 * 260 * 8)) <= 3 * FRAME
    assert await ear.listen(b"\xff" * 8000) == []
    assert await ear.listen(b"") == []


async def test_it_hears_one_after_the_other_with_a_new_detector_each() -> None:
    under_way, most, made = 0, 0, 0

    def detector() -> Probability:
        nonlocal made
        made += 1

        def slow(frame: bytes) -> float:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            time.sleep(0.001)
            under_way -= 1
            return sounds(frame)

        return slow

    ear = Ear(detector)
    await asyncio.gather(*(ear.listen(speech(range(2))) for _ in range(4)))
    ear.close()
    assert (most, made) == (1, 4)


async def test_calls_go_on_while_it_hears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REST_S", 0.001)
    ear = Ear()
    listening = asyncio.create_task(ear.listen(speech(range(20))))
    turns = 0
    while not listening.done():
        await asyncio.sleep(0)
        turns += 1
    ear.close()
    assert turns > 200  # of some 160 frames


async def test_closing_cuts_it_short() -> None:
    began = threading.Event()

    def detector() -> Probability:
        def endless(_: bytes) -> float:
            began.set()
            time.sleep(0.01)
            return 1.0

        return endless

    ear = Ear(detector)
    first, second = (asyncio.create_task(ear.listen(b"\xff" * 8000 * 60)) for _ in range(2))
    while not began.is_set():
        await asyncio.sleep(0.001)
    before = time.monotonic()
    ear.close()
    assert time.monotonic() - before < 1
    await first
    with pytest.raises(asyncio.CancelledError):
        await second


async def test_a_detector_that_fails_takes_everything_for_speech() -> None:
    def missing() -> Probability:
        raise ImportError("no such library")

    ear = Ear(missing)
    with capture_logs() as logs:
        assert await ear.listen(bytes(8000)) == [(0, 8000)]
    ear.close()
    assert [line["event"] for line in logs] == ["ear_failed"]
