from pathlib import Path

from tests.chaos.whisper_faults import run


async def test_every_word_comes_once_and_in_order(tmp_path: Path) -> None:
    line = await run(tmp_path, seeds=1, calls=3, seconds=25, speed=10)
    assert " 0 lost, 0 repeated, 0 calls out of order" in line
