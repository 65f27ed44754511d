from pathlib import Path

from tests.chaos.real_speech import run


async def test_cuts_take_no_words_away(tmp_path: Path) -> None:
    line = await run(tmp_path, seconds=9, differences=3)
    assert " cuts; of " in line
