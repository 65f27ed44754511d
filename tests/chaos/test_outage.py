from pathlib import Path

import pytest

from bridge.webhook import breaker
from tests.chaos import outage


async def test_a_receiver_that_is_away_is_left_in_peace_and_then_gets_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A tenth of the time. A hang takes as long as a POST's timeout, so that is for the full size.
    monkeypatch.setattr(breaker, "OPEN_S", 0.5)
    monkeypatch.setattr(outage, "BEFORE_S", 0.4)
    line = await outage.run(tmp_path, lanes=80, events=2, away_s=1.0, manners=("refuses", "503"))
    assert line.startswith("away for 1 s, 80 lanes; refuses: ")
