from pathlib import Path

from tests.chaos.whisper_outage import run


async def test_calls_catch_up_and_others_do_not_notice(tmp_path: Path) -> None:
    line = await run(tmp_path, calls=2, others=1, away_s=20, speed=10, later_ms=2000)
    assert " 0 lost, 0 repeated, 0 calls out of order" in line
