import numpy as np
import pytest

from bridge.local.twilio import CallReport, Lateness
from tests.benchmarks.child import Child
from tests.benchmarks.level import Delays, Level
from tests.benchmarks.staircase import Posted, Staircase
from tests.benchmarks.steps import Steps
from tests.benchmarks.system import System

GOOD, LATE, SLOW = (1.0, 0.010), (6.0, 0.010), (1.0, 0.060)
"""The load's lateness at p99 in ms, and the system's delay in s."""


class Still(Child):
    """Never started."""

    @property
    def memory_kb(self) -> tuple[int, int]:
        return 0, 0


class Scripted(Staircase):
    """Measures what it is told to."""

    def __init__(self, measured: list[tuple[float, float]], takes: int = 1000) -> None:
        child = Still("nothing", cpus=())
        super().__init__(System("floor", child, None), child, Posted())  # type: ignore[arg-type]  # it is not looked at
        self.measured, self.takes, self.calls = measured, takes, 0

    async def _add(self, calls: int) -> bool:
        self.calls = calls
        return calls <= self.takes

    async def _measure(self, seconds: float, before: tuple[int, int]) -> Level:
        late_ms, delay_s = self.measured.pop(0)
        delays = Delays(np.array([delay_s]), np.array([0.0]), np.array([delay_s]))
        return Level(
            self.calls, 0, seconds, 0, 0, 0, before[0], 0, 0, 0, delays, Lateness(late_ms, late_ms, late_ms)
        )

    async def _hang_up(self) -> list[CallReport]:
        return []

    async def _drain(self) -> None:
        pass


@pytest.mark.parametrize(
    ("measured", "stopped", "levels"),
    [
        ([GOOD, GOOD, GOOD], "top", [False, False, False]),
        ([GOOD, LATE, GOOD, GOOD], "top", [False, False, False]),
        ([GOOD, LATE, LATE], "load", [False, True]),
        ([GOOD, SLOW], "delay", [False, False]),
        ([LATE, SLOW], "delay", [False]),
    ],
)
async def test_a_void_level_is_measured_once_more_before_it_ends_the_staircase(
    measured: list[tuple[float, float]], stopped: str, levels: list[bool]
) -> None:
    climbed = await Scripted(measured).climb(Steps([1, 2, 3]), 1.0, 50.0)

    assert climbed["stopped_by"] == stopped
    assert [level["void"] for level in climbed["levels"]] == levels
    assert measured == []


async def test_without_a_limit_it_goes_to_the_top() -> None:
    climbed = await Scripted([SLOW, LATE, LATE]).climb(Steps([1, 2]), 1.0, None)

    assert (climbed["stopped_by"], len(climbed["levels"])) == ("top", 2)


async def test_calls_that_are_not_taken_end_it() -> None:
    climbed = await Scripted([GOOD], takes=1).climb(Steps([1, 2]), 1.0, 50.0)

    assert (climbed["stopped_by"], len(climbed["levels"])) == ("refused", 1)
