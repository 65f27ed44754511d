from pathlib import Path

import pytest

from tests.chaos.tokens import replay
from tests.doubles import postgres


async def test_a_token_admits_one_stream(tmp_path: Path) -> None:
    assert (await replay(tmp_path, "a", 10)).admitted == 1


@pytest.mark.skipif(not postgres.installed(), reason=postgres.MISSING)
async def test_a_token_admits_one_stream_at_all_bridges_together(tmp_path: Path) -> None:
    assert (await replay(tmp_path, "ab", 10)).admitted == 1
