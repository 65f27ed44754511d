import asyncio
import sys

import pytest

from bridge import loop


def test_the_fast_loop_is_used_where_there_is_one() -> None:
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        assert type(runner.get_loop()).__module__.partition(".")[0] == "uvloop"


def test_elsewhere_it_is_the_interpreters_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert loop.factory() is None
