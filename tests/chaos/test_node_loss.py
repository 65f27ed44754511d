import asyncio
from pathlib import Path

import pytest

from tests.chaos.node_loss import lose
from tests.doubles import postgres


@pytest.mark.skipif(not postgres.installed(), reason=postgres.MISSING)
async def test_the_calls_of_a_lost_bridge_go_on_with_another(tmp_path: Path) -> None:
    ways = (("start", 0), ("connect", 1), ("start", 1))
    places = [tmp_path / str(number) for number in range(len(ways))]
    for place in places:
        place.mkdir()
    async with asyncio.TaskGroup() as group:
        losses = [
            group.create_task(
                lose(place, mode, calls=1, kills=1 - zombies, zombies=zombies, calm_s=0.5, frozen_s=15.0)
            )
            for place, (mode, zombies) in zip(places, ways, strict=True)
        ]
    for loss in losses:
        figures = loss.result()
        assert figures.attached == 1
        assert figures.ended == 2
        assert figures.told.words > 20
