import asyncio
import gc
import sys

import pytest

from bridge import loop
from bridge.loop import rarely_collect


def test_the_fast_loop_is_used_where_there_is_one() -> None:
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        assert type(runner.get_loop()).__module__.partition(".")[0] == "uvloop"


def test_elsewhere_it_is_the_interpreters_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert loop.factory() is None


def test_what_is_there_already_is_searched_no_more_and_the_rest_seldom() -> None:
    before = gc.get_threshold()
    try:
        rarely_collect()
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == (*before[:2], 100)
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
