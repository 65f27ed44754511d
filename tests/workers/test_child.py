import asyncio
import signal
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

from bridge.workers import child as told
from bridge.workers.balance import Report
from bridge.workers.child import Child, Failed
from tests.doubles.bridge import settings


async def test_a_worker_says_why_it_cannot_start_and_ends(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    config = settings(
        tmp_path, "ws://127.0.0.1:9/", "https://example.com/", journal={"path": str(tmp_path / "journal")}
    )
    child, failed = Child(1, time.monotonic()), asyncio.Event()

    async def fails(about: Any) -> None:
        child.failed = msgspec.convert(about, Failed)
        failed.set()

    child.answers = {told.FAILED: fails}
    await child.start(config, port=8080, outbox=None)
    try:
        async with asyncio.timeout(60):
            assert await child.ended() == 2
            await failed.wait()
    finally:
        await child.close()
    assert child.failed is not None
    assert child.failed.code == 2
    assert child.failed.sentence.startswith("Audio cannot be kept in ")


async def test_one_that_is_closed_is_gone_and_takes_no_connections(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    child = Child(1, time.monotonic())
    await child.start(config, port=8080, outbox=None)
    one, other = socket.socketpair()
    with one, other:
        assert child.take(one, 1)
        assert child.standing.load == 1
        child.heard(Report(0, 1, taking=True), time.monotonic())
        assert child.standing.load == 0
        child.kill()
        async with asyncio.timeout(10):
            assert await child.ended() == -signal.SIGKILL
        assert not child.take(one, 2)
        assert child.closed
    await child.close()
