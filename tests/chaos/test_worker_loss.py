from pathlib import Path

import pytest

from tests.chaos.worker_loss import lose


@pytest.mark.parametrize("mode", ["start", "connect"])
async def test_the_calls_of_a_lost_worker_go_on_with_its_siblings(tmp_path: Path, mode: str) -> None:
    figures = await lose(tmp_path, mode, workers=2, kills=1, calls=2, calm_s=1.0)
    assert figures.kills == 1
    # One at least by the worker; all three when the leading process ended.
    assert figures.attached >= (4 if mode == "start" else 1)
    assert figures.told.words > 10
