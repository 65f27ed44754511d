from pathlib import Path

from tests.chaos.attach import run


async def test_a_number_is_attached_and_detached_whatever_happens(tmp_path: Path) -> None:
    figures = await run(tmp_path, kills=1)
    assert figures.kills == 2
    assert figures.numbers == 4
