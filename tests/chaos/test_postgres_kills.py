from pathlib import Path

import pytest

from tests.chaos.postgres_kills import run
from tests.doubles import postgres


@pytest.mark.skipif(not postgres.installed(), reason=postgres.MISSING)
async def test_killed_and_paused_bridges_lose_nothing_and_keep_the_order(tmp_path: Path) -> None:
    figures = await run(tmp_path, kills=3, pauses=2, workers=2, recovery_s=20)
    assert figures.refused > 0
    assert figures.recovery_s
