import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from itertools import pairwise

import pytest

from bridge.local.twilio.pacer import TURN, Clock, Pacer
from bridge.local.twilio.script import Beat


async def test_every_beat_comes_in_order_and_not_before_it_is_due() -> None:
    beats = [Beat(7, 0.0), Beat(8, 0.03), Beat(9, 0.03), Beat(10, 0.05)]
    struck: list[tuple[int, float, float]] = []

    def act(frame: int, late_s: float) -> bool:
        struck.append((frame, late_s, time.monotonic()))
        return True

    pacer = Pacer(iter(beats), act, patience_s=10)
    await pacer.run()

    assert [frame for frame, _, _ in struck] == [7, 8, 9, 10]
    for (_, late_s, at), beat in zip(struck, beats, strict=True):
        assert 0 <= late_s == pytest.approx(max(0.0, at - pacer.begun - beat.due_s), abs=0.002)
        assert at - pacer.begun >= beat.due_s - 0.002


async def test_what_cannot_be_done_yet_is_tried_again_and_delays_what_follows() -> None:
    refusals = [False, False, True, True]
    acted: list[int] = []

    def act(frame: int, _late_s: float) -> bool:
        acted.append(frame)
        return refusals.pop(0)

    await Pacer(iter([Beat(0, 0.0), Beat(1, 0.001)]), act, patience_s=10).run()

    assert acted == [0, 0, 0, 1]


async def test_patience_ends() -> None:
    with pytest.raises(TimeoutError):
        await Pacer(iter([Beat(0, 0.0)]), lambda _frame, _late_s: False, patience_s=0.02).run()


async def test_what_goes_wrong_is_raised_where_it_was_started() -> None:
    def act(_frame: int, _late_s: float) -> bool:
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError, match="gone"):
        await Pacer(iter([Beat(0, 0.0)]), act, patience_s=1).run()


@pytest.mark.parametrize("apart_s", [0.0, 0.01])
async def test_nothing_strikes_after_a_cancelled_run(apart_s: float) -> None:
    struck: list[int] = []

    def act(frame: int, _late_s: float) -> bool:
        struck.append(frame)
        return True

    pacer = Pacer((Beat(n, n * apart_s) for n in range(1_000_000)), act, patience_s=1)
    running = asyncio.create_task(pacer.run())
    while not struck:
        await asyncio.sleep(0)
    running.cancel()
    seen = len(struck)
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.sleep(0.03)

    assert len(struck) == seen


async def test_one_clock_serves_all_pacers_of_a_loop_in_the_order_of_their_beats() -> None:
    struck: list[str] = []

    def acting(name: str) -> Callable[[int, float], bool]:
        def act(frame: int, _late_s: float) -> bool:
            struck.append(f"{name}{frame}")
            return True

        return act

    late = Pacer(iter([Beat(0, 0.02), Beat(1, 0.04)]), acting("a"), patience_s=1)
    early = Pacer(iter([Beat(0, 0.01), Beat(1, 0.05)]), acting("b"), patience_s=1)
    await asyncio.gather(late.run(), early.run())

    assert struck == ["b0", "a0", "a1", "b1"]
    assert Clock.here() is Clock.here()


async def test_a_pacer_that_fails_stops_no_other() -> None:
    def fail(_frame: int, _late_s: float) -> bool:
        raise ConnectionResetError("gone")

    struck: list[int] = []

    def act(frame: int, _late_s: float) -> bool:
        struck.append(frame)
        return True

    failing = Pacer(iter([Beat(0, 0.0), Beat(1, 0.01)]), fail, patience_s=1)
    going = Pacer((Beat(n, n * 0.001) for n in range(2 * TURN)), act, patience_s=1)
    _, failed = await asyncio.gather(going.run(), failing.run(), return_exceptions=True)

    assert isinstance(failed, ConnectionResetError)
    assert struck == list(range(2 * TURN))


async def test_what_is_overdue_lets_others_have_a_turn() -> None:
    turns: list[int] = []
    struck: list[int] = []

    def act(frame: int, _late_s: float) -> bool:
        struck.append(frame)
        return True

    async def other() -> None:
        while len(struck) < 10 * TURN:
            turns.append(len(struck))
            await asyncio.sleep(0)

    pacer = Pacer((Beat(n, 0.0) for n in range(10 * TURN)), act, patience_s=1)
    await asyncio.gather(pacer.run(), other())

    assert max(after - before for before, after in pairwise(turns)) <= TURN


def test_a_clock_keeps_no_loop_alive() -> None:
    async def scenario() -> weakref.ref[asyncio.AbstractEventLoop]:
        await Pacer(iter([Beat(0, 0.0), Beat(1, 0.002)]), lambda _frame, _late_s: True, patience_s=1).run()
        return weakref.ref(asyncio.get_running_loop())

    with asyncio.Runner() as runner:
        loop = runner.run(scenario())
    del runner
    gc.collect()

    assert loop() is None
