"""The loop that removes what is past its time: how long things are kept, trouble, and its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.outbox import retention
from bridge.outbox.outbox import Outbox, Selection
from bridge.outbox.retention import retain
from bridge.outbox.sqlite import Sqlite
from tests.outbox.events import Clock, event, fill, work_off

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


@asynccontextmanager
async def retaining(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, *, keep_bodies_h: float = 24, keep_rows_d: float = 30
) -> AsyncIterator[None]:
    monkeypatch.setattr(retention, "EVERY_S", 0.01)
    task = asyncio.create_task(retain(outbox, keep_bodies_h=keep_bodies_h, keep_rows_d=keep_rows_d))
    try:
        yield
        assert not task.done(), "it goes on until it is cancelled"
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def kept(outbox: Outbox) -> list[bool]:
    return [record.kept for record in await outbox.records(Selection(), 100)]


async def wait_for(outbox: Outbox, wanted: list[bool]) -> None:
    async with asyncio.timeout(10):
        while await kept(outbox) != wanted:
            await asyncio.sleep(0.005)


async def test_bodies_are_kept_for_hours_and_rows_for_days(
    outbox: Outbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(outbox, event(1))
    await work_off(outbox)
    clock.now += 1.5 * HOUR_S
    await fill(outbox, event(1, call="CA2"), call="CA2")
    await work_off(outbox)
    async with retaining(outbox, monkeypatch, keep_bodies_h=2, keep_rows_d=3):
        clock.now += HOUR_S
        await wait_for(outbox, [True, False])
        clock.now += HOUR_S
        await wait_for(outbox, [False, False])
        clock.now += 3 * DAY_S - 3 * HOUR_S
        await wait_for(outbox, [False])
        clock.now += HOUR_S
        await wait_for(outbox, [])


async def test_much_is_removed_in_one_go(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(outbox, *(event(n) for n in range(1, 1202)))
    await work_off(outbox)
    monkeypatch.setattr(retention, "AT_ONCE_S", 60.0)
    async with retaining(outbox, monkeypatch, keep_bodies_h=0), asyncio.timeout(10):
        while any(record.kept for record in await outbox.records(Selection(), 2000)):
            await asyncio.sleep(0.005)


async def test_bodies_that_are_not_kept_are_gone_soon(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retention.AT_ONCE_S <= 1
    monkeypatch.setattr(retention, "AT_ONCE_S", 0.01)
    async with retaining(outbox, monkeypatch, keep_bodies_h=0):
        monkeypatch.setattr(retention, "EVERY_S", 60.0)
        await fill(outbox, event(1))
        await work_off(outbox)
        await wait_for(outbox, [False])


async def test_an_outbox_that_is_down_is_named_once_and_outlived(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Sqlite(tmp_path, clock)  # not open yet
    with capture_logs() as lines:
        async with retaining(outbox, monkeypatch, keep_bodies_h=1):
            await asyncio.sleep(0.1)  # several looks
            await outbox.open()
            await fill(outbox, event(1))
            await work_off(outbox)
            clock.now += HOUR_S
            await wait_for(outbox, [False])
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("retention_down", "error"),
        ("retention_up", "info"),
    ]
    assert lines[0]["error"] == "The outbox is not open."
    await outbox.close()
