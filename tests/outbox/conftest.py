"""A clock that stands still until it is moved, and an open outbox of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.outbox.sqlite import Sqlite


class Clock:
    def __init__(self, now: float = 1_787_392_800.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def outbox(tmp_path: Path, clock: Clock) -> AsyncIterator[Sqlite]:
    opened = Sqlite(tmp_path / "outbox", clock)
    await opened.open()
    yield opened
    await opened.close()
