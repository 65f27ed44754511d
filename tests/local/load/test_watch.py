import mmap
import os

import pytest

from bridge.errors import UsageError
from bridge.local.load.watch import Watch


async def test_what_was_used_is_told_for_each_minute_of_calls() -> None:
    async with Watch([os.getpid(), os.getpid()], lambda: 3) as watch:
        with mmap.mmap(
            -1, 6 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        ) as held:  # of no allocator's store
            held.write(bytes([1]) * len(held))
            sum(range(300_000))
            watch.look()

    figures = watch.figures(call_minutes=0.5)

    assert (figures["processes"], figures["calls"]) == (1, 3)
    assert isinstance(figures["cpu_s"], float)
    assert 0.001 < figures["cpu_s"] < 5
    assert figures["cpu_ms_per_call_minute"] == pytest.approx(2000 * figures["cpu_s"], abs=1)
    assert isinstance(figures["rss_kb_per_call"], float)
    assert 1000 < figures["rss_kb_per_call"] < 4000
    assert watch.figures(call_minutes=0)["cpu_ms_per_call_minute"] is None


async def test_a_process_that_is_not_there_is_told_at_once() -> None:
    with pytest.raises(UsageError, match="4194305"):
        async with Watch([4194305], lambda: 0):
            pass
