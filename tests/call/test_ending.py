import asyncio
from typing import Any

import pytest

from bridge.call import ending as module
from bridge.call.ending import OVERLAP
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.sqlite import Sqlite
from tests.doubles.world import World


@pytest.mark.parametrize("beside", [False, True])
async def test_a_call_that_goes_on_elsewhere_leaves_nothing_here(world: World, beside: bool) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        (kept,) = bridge.calls
        async with asyncio.timeout(10):
            while not kept.pauses:
                await asyncio.sleep(0.01)
        await kept.let_go(8.0, wanted=beside, beside=beside)
        until = kept._legs.kept_until
        outbox = bridge._services.outbox
        lease = await outbox.own_call(call.report.call_sid, "next", b"", only_from="")
        assert world.journals() == []
    overlaps = [until - lease.watermarks[track] for track in ("inbound", "outbound")]
    assert overlaps[0] == overlaps[1]  # nothing of the one is missing that the other has
    assert 0 < overlaps[0] <= OVERLAP if beside else overlaps[0] == 0
    assert "call.ended" not in {r.type for r in world.receiver.received}


@pytest.mark.parametrize("wanted", [False, True])
async def test_what_is_left_when_the_time_is_up_stays_on_the_disk(world: World, wanted: bool) -> None:
    async with world.bridge() as bridge, world.talking(bridge) as call:
        (kept,) = bridge.calls
        await kept.let_go(0.0, wanted=wanted)
        known = await bridge._services.outbox.known(call.report.call_sid)
        assert known is not None
        assert known.owner == ("" if wanted else kept.folder.id)
        assert len(world.journals()) == 1


async def test_an_outbox_that_is_down_keeps_no_process_from_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LET_GO_S", 0.2)

    async def down(*_: Any, **__: Any) -> None:
        raise OutboxDown("the disk is away")

    async with world.bridge() as bridge, world.talking(bridge):
        (kept,) = bridge.calls
        monkeypatch.setattr(Sqlite, "publish", down)
        async with asyncio.timeout(5):
            await kept.let_go(0.5, wanted=True)
        monkeypatch.undo()
        assert len(world.journals()) == 1
        assert kept.done.is_set()
