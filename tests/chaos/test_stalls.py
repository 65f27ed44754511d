import asyncio
import contextlib
import os
import sys
from pathlib import Path

import pytest

from tests.chaos.stalls import Stalls


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this system does not tell")
async def test_a_process_that_waits_for_a_processor_is_noticed_and_one_that_sleeps_is_not() -> None:
    processor = str(min(os.sched_getaffinity(0)))
    spin = f"import os, time; os.sched_setaffinity(0, [{processor}]); print(flush=True)\nwhile True: pass"
    sleep = "import time; print(flush=True); time.sleep(60)"
    stalls = {}
    for name, code in (("spins", spin), ("sleeps", sleep)):
        two = [await _python(code) for _ in range(2)]
        try:
            pids = [each.pid for each in two]
            stalls[name] = Stalls(pids.copy)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stalls[name].run(), 1.0)
        finally:
            for each in two:
                each.kill()
                await each.wait()
    assert stalls["spins"].longest_ms > 20
    assert stalls["sleeps"].longest_ms < stalls["spins"].longest_ms / 2


async def _python(code: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    return process
