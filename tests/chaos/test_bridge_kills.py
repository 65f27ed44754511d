from pathlib import Path

from tests.chaos.bridge_kills import run


async def test_a_bridge_that_is_killed_in_mid_call_loses_no_word_that_it_received(tmp_path: Path) -> None:
    figures = await run(tmp_path, kills=6, calls=1)
    assert figures.kills >= 6
    assert figures.whole > 10
    assert len(figures.off_ms) >= 4
