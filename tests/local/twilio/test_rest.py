import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from bridge.local.twilio.account import Account
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest import RestApi
from bridge.local.twilio.script import Script
from tests.doubles.strict_bridge import PUBLIC, TOKEN, StrictBridge

ACCOUNT = Account("AC22222222222222222222222222222222", TOKEN)
Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


@asynccontextmanager
async def ringing(
    bridge: StrictBridge, frames: int = 200
) -> AsyncIterator[tuple[SimulatedCall, RestApi, Ask]]:
    """A call of that many frames, at twenty times real time; and how to ask about it."""
    audio: Any = {"inbound": b"".join(bytes([n % 256]) * 160 for n in range(frames))}
    call = SimulatedCall(ACCOUNT, bridge.voice_url, audio, Script(speed=20), public_url=PUBLIC)
    async with RestApi(ACCOUNT, [call]) as api, aiohttp.ClientSession() as client:

        async def ask(
            path: str = ".json",
            form: dict[str, str] | None = None,
            *,
            account: str = ACCOUNT.sid,
            call_sid: str = call.report.call_sid,
            token: str = TOKEN,
        ) -> tuple[int, dict[str, Any]]:
            url = f"{api.url}/2010-04-01/Accounts/{account}/Calls/{call_sid}{path}"
            authorization = aiohttp.encode_basic_auth(ACCOUNT.sid, token)
            async with client.request(
                "POST" if form else "GET", url, data=form, headers={"Authorization": authorization}
            ) as answer:
                return answer.status, await answer.json()

        yield call, api, ask


async def streaming(call: SimulatedCall, streams: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(call.report.streams) < streams or not call.report.streams[-1].frames:
            await asyncio.sleep(0.005)


async def test_a_call_says_what_it_is_doing(bridge: StrictBridge) -> None:
    async with ringing(bridge, 2000) as (call, _, ask):
        assert (await ask())[1]["status"] == "queued"
        task = asyncio.create_task(call.run())
        await streaming(call)
        status, shown = await ask()
        assert (status, shown["sid"], shown["status"], shown["end_time"]) == (
            *(200, call.report.call_sid),
            *("in-progress", None),
        )
        await task
        _, shown = await ask()
        assert shown["status"] == "completed"
        ended = parsedate_to_datetime(shown["end_time"])
        assert abs((datetime.now(UTC) - ended).total_seconds()) < 5


async def test_strangers_learn_nothing(bridge: StrictBridge) -> None:
    async with ringing(bridge) as (_, api, ask):
        assert (await ask(token="wrong"))[0] == 401
        assert (await ask(account="AC" + "9" * 32))[0] == 404
        assert (await ask(call_sid="CA" + "9" * 32))[1]["code"] == 20404
        assert (await ask("/Nothing.json"))[0] == 404
        api.refuse = 503
        assert (await ask())[0] == 503
        assert len(api.asked) == 5


async def test_a_call_can_be_sent_to_another_document(bridge: StrictBridge) -> None:
    async with ringing(bridge, 2000) as (call, _, ask):
        task = asyncio.create_task(call.run())
        await streaming(call)
        status, _ = await ask(form={"Url": f"{PUBLIC}/twilio/voice", "Method": "POST"})
        assert status == 200
        await streaming(call, 2)
        await task
    assert [path for path, _ in bridge.forms].count("/twilio/voice") == 2
    first, second = call.report.streams
    assert 0 < second.first_frame < 200
    assert first.stream_sid != second.stream_sid
    again = [
        message["media"]
        for message in bridge.messages
        if message.get("streamSid") == second.stream_sid and "media" in message
    ]
    assert again[0]["timestamp"] == "20"


async def test_a_call_without_a_stream_any_more_goes_on_where_people_are_by_then(
    bridge: StrictBridge,
) -> None:
    async def cut(ws: Any, message: dict[str, Any]) -> None:
        if message["event"] == "media" and len(bridge.upgrades) == 1:
            await ws.close()

    bridge.on_message = cut
    async with ringing(bridge, 400) as (call, _, _):
        task = asyncio.create_task(call.run())
        async with asyncio.timeout(5):
            await bridge.socket_over.wait()
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.1)
        call.redirect()
        await streaming(call, 2)
        passed = asyncio.get_running_loop().time() - began
        await task
    assert 0.1 * 20 * 50 <= call.report.streams[1].first_frame <= passed * 20 * 50 + 20


async def test_a_stream_can_be_started_beside_what_the_call_is_doing(bridge: StrictBridge) -> None:
    async with ringing(bridge, 2000) as (call, _, ask):
        form = {
            "Url": "wss://bridge.example.com/twilio/media",
            "Name": "again",
            "Track": "both_tracks",
            "StatusCallback": f"{PUBLIC}/twilio/stream-status",
            "Parameter1.Name": "token",
            "Parameter1.Value": "k10",
        }
        assert (await ask("/Streams.json", form))[1]["code"] == 21220
        task = asyncio.create_task(call.run())
        await streaming(call)
        status, made = await ask("/Streams.json", form)
        assert (status, made["name"], made["status"]) == (201, "again", "in-progress")
        await streaming(call, 2)
        await task
    assert made["sid"] == call.report.streams[1].stream_sid
    started = [message["start"] for message in bridge.messages if message["event"] == "start"]
    assert started[1]["customParameters"] == {"token": "k10"}
    assert started[1]["tracks"] == ["inbound", "outbound"]
    assert bridge.stream_events().count("stream-started") == 2


@pytest.mark.parametrize("wrong", [{"Url": "https://bridge.example.com/"}, {"Track": "all"}])
async def test_a_stream_that_cannot_be_is_refused(bridge: StrictBridge, wrong: dict[str, str]) -> None:
    async with ringing(bridge) as (_, _, ask):
        form = {"Url": "wss://bridge.example.com/twilio/media", "Track": "inbound_track"} | wrong
        assert (await ask("/Streams.json", form))[1]["code"] == 21609


async def test_a_call_can_be_ended(bridge: StrictBridge) -> None:
    async with ringing(bridge, 10_000) as (call, _, ask):
        task = asyncio.create_task(call.run())
        await streaming(call)
        assert (await ask(form={"Status": "completed"}))[0] == 200
        report = await task
        assert (await ask(form={"Url": PUBLIC}))[1]["code"] == 21220
    assert report.ok, report.problem
    assert len(report.sent) < 10_000
