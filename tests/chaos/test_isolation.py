from pathlib import Path

from tests.chaos.isolation import run


async def test_healthy_calls_are_delivered_beside_a_refused_one_and_a_dead_endpoint(tmp_path: Path) -> None:
    line = await run(
        tmp_path, lanes=48, events=3, seconds=1.5, rounds=1, engines=("sqlite",), most_added_ms=5000
    )
    assert line.startswith("sqlite: p99 of 105 healthy events ")
