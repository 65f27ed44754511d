from pathlib import Path

from tests.chaos.backlog import run


async def test_a_new_call_is_delivered_beside_a_backlog(tmp_path: Path) -> None:
    line = await run(
        tmp_path, lanes=120, events=10, engines=("sqlite",), most_claim_ms=1000, most_delivered_ms=5000
    )
    assert line.startswith("sqlite: beside 120")
