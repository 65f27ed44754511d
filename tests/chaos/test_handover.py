import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from tests.chaos.handover import Figures, alone, beside, hurried
from tests.doubles import postgres


@pytest.mark.parametrize("way", [beside, hurried, alone])
async def test_a_bridge_that_ends_hands_its_calls_over(
    tmp_path: Path, way: Callable[[Path, str, int, float], Coroutine[None, None, Figures]]
) -> None:
    if way is not alone and not postgres.installed():
        pytest.skip(postgres.MISSING)
    modes = {mode: tmp_path / mode for mode in ("start", "connect")}
    for directory in modes.values():
        directory.mkdir()
    async with asyncio.TaskGroup() as group:
        ways = [group.create_task(way(directory, mode, 1, 1.0)) for mode, directory in modes.items()]
    for ended in ways:
        assert ended.result().told.words > 5
