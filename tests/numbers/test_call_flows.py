"""Where calls go on: known at once, kept when the outbox is down, and never waited for longer than a second."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.config import CallFlow, Config, NumberSettings
from bridge.numbers import call_flows as module
from bridge.numbers.call_flows import CallFlows
from bridge.outbox.attachments import Attachment
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.sqlite import Sqlite

ONE, TWO = "+15550101", "+15550102"
HANDLER = "https://voice.example.com/ivr?x=1"


class Counted(Sqlite):
    """The real store, whose answers may be withheld."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.asked = 0
        self.down = False
        self.answer = asyncio.Event()
        self.answer.set()

    async def attached(self) -> list[Attachment]:
        self.asked += 1
        await self.answer.wait()
        if self.down:
            raise OutboxDown("no room")
        return await super().attached()


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Counted]:
    store = Counted(tmp_path)
    await store.open()
    yield store
    await store.close()


def settings(number: str, then: str = "") -> NumberSettings:
    numbers = [{"number": number, "then": then}]
    return Config.model_validate({"numbers": numbers}).for_number(number)


async def remember(outbox: Sqlite, number: str, then: str, method: str = "POST") -> None:
    await outbox.attach(Attachment(f"PN{number}", number, b"", then, method))


async def flow(flows: CallFlows, number: str) -> CallFlow:
    return (await flows.applied_to(settings(number))).then


async def test_an_attached_number_goes_on_as_before(outbox: Counted) -> None:
    flows = CallFlows(outbox)
    assert await flow(flows, ONE) == CallFlow()
    await remember(outbox, ONE, HANDLER, "GET")
    await remember(outbox, TWO, "")
    assert await flow(flows, ONE) == CallFlow(HANDLER, "GET")
    asked = outbox.asked
    assert await flow(flows, ONE) == CallFlow(HANDLER, "GET")
    assert await flow(flows, TWO) == CallFlow()
    assert outbox.asked == asked  # it is known


async def test_the_configuration_s_own_comes_first(outbox: Counted) -> None:
    await remember(outbox, ONE, HANDLER)
    own = settings(ONE, "https://own.example.com")
    assert await CallFlows(outbox).applied_to(own) is own
    assert outbox.asked == 0


async def test_other_settings_stay(outbox: Counted) -> None:
    await remember(outbox, ONE, HANDLER)
    before = settings(ONE)
    after = await CallFlows(outbox).applied_to(before)
    assert (after.number, after.twilio, after.webhook) == (ONE, before.twilio, before.webhook)


async def test_many_calls_at_once_ask_a_few_times_only(outbox: Counted) -> None:
    flows = CallFlows(outbox)
    await remember(outbox, ONE, HANDLER)
    outbox.answer.clear()
    calls = [asyncio.create_task(flow(flows, ONE)) for _ in range(50)]
    await asyncio.sleep(0)
    outbox.answer.set()
    assert set(await asyncio.gather(*calls)) == {CallFlow(HANDLER)}
    assert outbox.asked <= 2


async def test_what_was_known_last_counts_while_the_outbox_is_down(outbox: Counted) -> None:
    flows = CallFlows(outbox)
    await remember(outbox, ONE, HANDLER)
    await flow(flows, ONE)
    outbox.down = True
    assert await flow(flows, TWO) == CallFlow()
    assert await flow(flows, ONE) == CallFlow(HANDLER)
    outbox.down = False
    await remember(outbox, TWO, HANDLER)
    assert await flow(flows, TWO) == CallFlow(HANDLER)


async def test_no_call_waits_for_long(outbox: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    flows = CallFlows(outbox)
    outbox.answer.clear()
    async with asyncio.timeout(5):
        calls = [flow(flows, ONE) for _ in range(20)]
        assert set(await asyncio.gather(*calls)) == {CallFlow()}
    outbox.answer.set()
    await remember(outbox, ONE, HANDLER)
    assert await flow(flows, ONE) == CallFlow(HANDLER)


async def test_changes_of_other_machines_come_by_themselves(
    outbox: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_S", 0.01)
    flows = CallFlows(outbox)
    await remember(outbox, ONE, "https://old.example.com")
    await flow(flows, ONE)
    await remember(outbox, ONE, HANDLER)
    refreshing = asyncio.create_task(flows.run())
    try:
        async with asyncio.timeout(5):
            while await flow(flows, ONE) != CallFlow(HANDLER):
                await asyncio.sleep(0.005)
            outbox.down = True
            asked = outbox.asked
            while outbox.asked < asked + 2:
                await asyncio.sleep(0.005)
            outbox.down = False
            await outbox.detach(f"PN{ONE}")
            while await flow(flows, ONE) != CallFlow():
                await asyncio.sleep(0.005)
    finally:
        refreshing.cancel()
        await asyncio.gather(refreshing, return_exceptions=True)
