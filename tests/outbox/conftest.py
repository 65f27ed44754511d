"""A clock that stands still until it is moved, and an open outbox of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.outbox.outbox import Outbox
from bridge.outbox.postgresql.postgres import Postgres
from bridge.outbox.sqlite import Sqlite
from tests.outbox.hosted import hosted


class Clock:
    def __init__(self, now: float = 1_787_392_800.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "remote", "postgresql"])
def closed_outbox(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Outbox:
    """Empty, and not open yet; its time is `clock`."""
    if request.param == "sqlite":
        return Sqlite(tmp_path / "outbox", clock)
    if request.param == "remote":
        return hosted(Sqlite(tmp_path / "outbox", clock))
    return Postgres(request.getfixturevalue("postgres_url"), clock)


@pytest.fixture
async def outbox(closed_outbox: Outbox) -> AsyncIterator[Outbox]:
    """Empty, and open; its time is `clock`."""
    await closed_outbox.open()
    yield closed_outbox
    await closed_outbox.close()
