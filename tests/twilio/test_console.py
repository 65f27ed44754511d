"""What the operator's API does not show of itself; the rest is in tests/api/test_calls.py."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.call.memo import About, Memo
from bridge.config import TwilioConfig
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.rest import Fault, RestApi
from bridge.local.twilio.script import Script
from bridge.outbox.outbox import OutboxDown
from bridge.twilio import console as module
from bridge.twilio.addresses import Addresses
from bridge.twilio.console import Attached, Console, Refused
from bridge.twilio.live import LiveCalls
from bridge.twilio.rest import RestFailed, TwilioRest
from bridge.twilio.stream_token import StreamTokens, Ticket
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, Setup, running
from tests.doubles.numbered import NumberedWhisper, speech

STREAM = "MZ" + "8" * 32


@asynccontextmanager
async def at_the_console(
    directory: Path, **sections: Any
) -> AsyncIterator[tuple[Setup, RestApi, SimulatedCall, Console]]:
    """A bridge, a call in progress of which it knows nothing, and the bridge's console."""
    async with RestApi(ACCOUNT) as api, NumberedWhisper() as whisper:
        twilio = {"api_base_url": api.url}
        async with running(directory, whisper.url, twilio=twilio, **sections) as setup:
            elsewhere = Handler(url="https://voice.example.com/existing")
            audio = {"inbound": speech(range(60))}
            call = api.add(setup.call(audio, Script(speed=4), handler=elsewhere))
            talking = asyncio.create_task(call.run())
            async with asyncio.timeout(5):
                while call.status != "in-progress":
                    await asyncio.sleep(0.01)
            config = TwilioConfig.model_validate(
                {"account_sid": ACCOUNT.sid, "auth_token": ACCOUNT.auth_token, **twilio}
            )
            async with TwilioRest(config) as rest:
                live = LiveCalls(rest, Addresses.of(PUBLIC_URL))
                yield setup, api, call, setup.bridge.twilio.console(live, setup.bridge._services.outbox)
            call.hang_up()
            await talking


def memo_of(call_sid: str) -> Memo:
    about = About(call_sid, ACCOUNT.sid, "+15550100", "+15550199", "inbound", {})
    return Memo(
        about, "https://agent.example.com/", STREAM, ["inbound", "outbound"], "start", began_at=time.time()
    )


def ticket_of(api: RestApi, call_sid: str) -> Ticket:
    """What the token says that Twilio was given last."""
    token = next(asked.form["Parameter1.Value"] for asked in reversed(api.requests) if "Url" in asked.form)
    return StreamTokens([ACCOUNT.auth_token]).read(
        token, call_sid=call_sid, account_sid=ACCOUNT.sid, now=time.time()
    )


async def test_the_token_says_whose_call_it_is_and_that_it_is_new(tmp_path: Path) -> None:
    async with at_the_console(tmp_path) as (setup, api, call, console):
        attached = await console.attach(call.report.call_sid)
        assert attached == Attached(call.report.stream_sid, already=False, arrived=True)
        ticket = ticket_of(api, call.report.call_sid)
        assert (ticket.from_, ticket.to, ticket.direction) == ("+15550100", "+15550199", "inbound")
        assert not ticket.again
        assert setup.bridge.calls.get(call.report.call_sid) is not None


async def test_a_call_that_another_bridge_has_keeps_its_stream(tmp_path: Path) -> None:
    async with at_the_console(tmp_path) as (setup, api, call, console):
        outbox, call_sid = setup.bridge._services.outbox, call.report.call_sid
        await outbox.beat("another")
        await outbox.own_call(call_sid, "another", memo_of(call_sid).encode(), node="another")
        assert await console.attach(call_sid) == Attached(STREAM, already=True, arrived=False)
        assert not api.asked
        with pytest.raises(Refused, match="ask the one that does") as refused:
            await console.detach(call_sid)
        assert refused.value.why == "conflict"


async def test_a_call_that_was_lost_is_gone_on_with(tmp_path: Path) -> None:
    async with at_the_console(tmp_path) as (setup, api, call, console):
        outbox, call_sid = setup.bridge._services.outbox, call.report.call_sid
        memo = replace(memo_of(call_sid), endpoint=setup.receiver.url)
        await outbox.let_go(await outbox.own_call(call_sid, "gone", memo.encode(), node="gone"))
        await console.attach(call_sid)
        assert ticket_of(api, call_sid).again


@pytest.mark.parametrize("erased", [False, True])
async def test_what_is_over_for_us_is_not_begun_again(tmp_path: Path, erased: bool) -> None:
    async with at_the_console(tmp_path) as (setup, api, call, console):
        outbox, call_sid = setup.bridge._services.outbox, call.report.call_sid
        assert (await console.attach(call_sid)).arrived
        if erased:
            await outbox.erase(call_sid)
            await setup.bridge.calls.erase(call_sid)
        else:
            await console.detach(call_sid)
        async with asyncio.timeout(10):
            while len(setup.bridge.calls):
                await asyncio.sleep(0.01)
        before = len(api.asked)
        setup.bridge.calls._ended.clear()  # as after a restart
        with pytest.raises(Refused, match="transcribed to its end") as refused:
            await console.attach(call_sid)
        assert refused.value.why == "conflict"
        assert not await console.detach(call_sid)
        assert len(api.asked) == before


async def test_nobody_waits_for_twilio_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTACH_S", 0.2)
    async with at_the_console(tmp_path) as (setup, api, call, console):
        hangs = api.faults.add(Fault(times=None, released=asyncio.Event()))
        with pytest.raises(RestFailed, match="did not answer") as failed:
            await console.attach(call.report.call_sid)
        assert failed.value.passing
        assert hangs.released is not None
        hangs.released.set()
        api.faults.clear()
        monkeypatch.setattr(module, "ATTACH_S", 10.0)
        assert (await console.attach(call.report.call_sid)).arrived
        hangs = api.faults.add(Fault(times=None, released=asyncio.Event()))
        monkeypatch.setattr(module, "ATTACH_S", 0.2)
        assert await console.detach(call.report.call_sid)
        assert hangs.released is not None
        hangs.released.set()
        events = await setup.ended(call.report.call_sid)
        assert events[-1].data["reason"] == "detached"


async def test_without_the_outbox_it_is_not_known_whose_call_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_the_console(tmp_path) as (setup, api, call, console):

        async def silent(_: str) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(module, "OUTBOX_S", 0.05)
        monkeypatch.setattr(setup.bridge._services.outbox, "known", silent)
        with pytest.raises(OutboxDown):
            await console.attach(call.report.call_sid)
        with pytest.raises(OutboxDown):
            await console.detach(call.report.call_sid)
        assert not api.asked
