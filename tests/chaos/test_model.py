from pathlib import Path

import pytest

from tests.chaos.model import run


@pytest.mark.usefixtures("postgres_programs")
async def test_both_outboxes_equal_the_model(tmp_path: Path) -> None:
    line = await run(tmp_path, examples=5, shared=2, steps=10)
    assert line == "5 histories of 10 steps on SQLite, as many through a host of it, 2 on PostgreSQL"
