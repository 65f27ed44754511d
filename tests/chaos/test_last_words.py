from pathlib import Path

from tests.chaos.last_words import run


async def test_the_last_words_are_there(tmp_path: Path) -> None:
    line = await run(tmp_path, drops=6, calls=6, speed=10)
    assert line.startswith("6 drops between end_audio and finished, last words 6/6; 60 words, 0 lost")
