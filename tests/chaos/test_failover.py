from pathlib import Path

import pytest

from tests.chaos.failover import run
from tests.doubles import postgres


@pytest.mark.skipif(not postgres.installed(), reason=postgres.MISSING)
async def test_a_failover_loses_nothing_and_needs_no_restart(tmp_path: Path) -> None:
    figures = await run(
        tmp_path, failovers=1, workers=2, calm_s=0.3, unreachable_s=0.5, notice_s=0.5, late_s=30
    )
    unreachable, killed = figures.outages
    assert unreachable.stall_s >= 0.3
    assert killed.stall_s >= 0.5
    assert figures.history.acknowledged > 50
