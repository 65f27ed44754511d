from pathlib import Path

from tests.chaos.latency import run


async def test_what_is_published_arrives_on_either_outbox(tmp_path: Path) -> None:
    line = await run(tmp_path, calls=4, events=5, seconds=0.5, rounds=1, most_ms=5000)
    assert line.startswith("sqlite: 20 events, p50 ")
    assert "; postgresql: " in line
