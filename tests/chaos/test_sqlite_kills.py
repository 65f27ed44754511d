from pathlib import Path

from tests.chaos.sqlite_kills import run


async def test_a_killed_bridge_loses_nothing_and_keeps_the_order(tmp_path: Path) -> None:
    figures = await run(tmp_path, kills=15, outages=3, life_s=0.4)
    assert figures.exact.total() > 1
    assert figures.history.acknowledged > 100
