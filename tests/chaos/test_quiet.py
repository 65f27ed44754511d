from pathlib import Path

from tests.chaos.quiet import run


async def test_a_call_on_hold_says_nothing_and_costs_nothing(tmp_path: Path) -> None:
    line = await run(tmp_path, minutes=0.5, speed=6)
    assert "3 sockets for 3 calls" in line
