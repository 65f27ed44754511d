import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

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


async def test_a_connection_that_cannot_be_passed_on_now_does_not_shut_a_worker_out(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    child = Child(1, time.monotonic())
    await child.start(config, port=8080, outbox=None)
    one, other = socket.socketpair()
    with one, other:
        gone, far = socket.socketpair()
        gone.close()
        far.close()
        assert not child.take(gone, 1)  # an error that says nothing of the worker
        assert not child.closed
        assert child.take(one, 2)
    await child.close()


async def test_what_could_not_be_started_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    ours, theirs = socket.socketpair()
    with ours:
        before = len(os.listdir("/dev/fd"))  # noqa: PTH208 - no folder of files
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                await Child(1, time.monotonic()).start(config, port=8080, outbox=theirs.dup())
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next turn
        assert len(os.listdir("/dev/fd")) == before  # noqa: PTH208
    theirs.close()


async def test_one_that_cannot_be_understood_is_ended(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    child = Child(1, time.monotonic())
    child.counted = [["a figure of another version"]]
    assert child.figures == []
    await child.start(config, port=8080, outbox=None)
    os.kill(child.pid, signal.SIGSTOP)  # it does not see that its line is cut
    child.line._reader.feed_data(b"\xff" * 4)
    async with asyncio.timeout(10):
        assert await child.ended() == -signal.SIGKILL
    await child.close()


def test_one_hangs_that_has_not_reported_for_half_a_minute_of_looks() -> None:
    child = Child(1, time.monotonic())
    assert not any(child.hangs() for _ in range(100)), "it is not ready yet"
    child.ready = True
    assert not any(child.hangs() for _ in range(told.HANGING - 1))
    child.heard(Report(0, 0, taking=True), time.monotonic())
    assert [child.hangs() for _ in range(told.HANGING + 1)] == [False] * (told.HANGING - 1) + [True, True]
    child.heard(Report(0, 0, taking=False), time.monotonic())
    assert not any(child.hangs() for _ in range(100)), (
        "it has told that it is about to end, and is waited for"
    )
