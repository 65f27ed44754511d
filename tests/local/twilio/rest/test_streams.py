import asyncio
from typing import Any

import pytest
from aiohttp import web

from tests.doubles.strict_bridge import CONNECT, PUBLIC, StrictBridge
from tests.local.twilio.rest.conftest import World, streaming

MEDIA = "wss://bridge.example.com/twilio/media"


async def start(world: World, call_sid: str, **asked: Any) -> Any:
    asked = {"url": MEDIA} | asked
    return await world.twilio.ask(lambda client: client.calls(call_sid).streams.create(**asked))


async def refused(world: World, call_sid: str, **asked: Any) -> tuple[int, int | None]:
    asked = {"url": MEDIA} | asked
    return await world.twilio.refused(lambda client: client.calls(call_sid).streams.create(**asked))


async def test_a_stream_is_started_beside_what_the_call_is_doing(world: World) -> None:
    async with world.ringing() as (call, _):
        made = await start(
            world,
            call.report.call_sid,
            name="again",
            track="both_tracks",
            status_callback=f"{PUBLIC}/twilio/stream-status",
            status_callback_method="POST",
            parameter1_name="token",
            parameter1_value="k10",
            parameter99_name="last",
            parameter99_value="",
        )
        await streaming(call, 2)
    assert (made.name, made.status, made.call_sid) == ("again", "in-progress", call.report.call_sid)
    assert made.sid == call.report.streams[1].stream_sid != call.report.streams[0].stream_sid
    started = [message["start"] for message in world.bridge.messages if message["event"] == "start"]
    assert started[1]["customParameters"] == {"token": "k10", "last": ""}
    assert started[1]["tracks"] == ["inbound", "outbound"]
    media = [
        message["media"]
        for message in world.bridge.messages
        if message.get("streamSid") == made.sid and "media" in message
    ]
    assert (media[0]["timestamp"], media[0]["chunk"]) == ("20", "1")
    assert world.bridge.stream_events().count("stream-started") == 2


@pytest.mark.parametrize("by", ["sid", "name"])
async def test_a_stream_is_stopped_and_the_call_goes_on(world: World, by: str) -> None:
    async with world.ringing() as (call, _):
        made = await start(world, call.report.call_sid, name="again")
        await streaming(call, 2)
        stream = world.twilio.client.calls(call.report.call_sid).streams(getattr(made, by))
        assert (await world.twilio.ask(lambda _: stream.update(status="stopped"))).status == "stopped"
        async with asyncio.timeout(5):
            await world.bridge.socket_over.wait()
        assert world.bridge.close_codes == [1000]
        sent = len(call.report.sent)
        await streaming(call, 2)
        async with asyncio.timeout(5):
            while len(call.report.sent) == sent:
                await asyncio.sleep(0.005)
        assert call.status == "in-progress"
    stops = [message for message in world.bridge.messages if message["event"] == "stop"]
    assert next(stop["streamSid"] for stop in stops) == made.sid
    assert call.report.ok, call.report.problem
    assert await world.twilio.refused(lambda _: stream.update(status="stopped")) == (400, 21220)


async def test_a_stream_that_is_not_there_cannot_be_stopped(world: World) -> None:
    async with world.ringing() as (call, _):
        streams = world.twilio.client.calls(call.report.call_sid).streams
        assert await world.twilio.refused(lambda _: streams("MZ1").update(status="stopped")) == (404, 20404)
        stream = streams(call.report.stream_sid)
        assert await world.twilio.refused(lambda _: stream.update(status="over")) == (400, 20001)


async def test_a_call_without_a_stream_can_get_one_later(world: World, bridge: StrictBridge) -> None:
    bridge.twiml = "<Response><Dial>+15550123</Dial></Response>"
    async with world.ringing(400, streams=0) as (call, task):
        async with asyncio.timeout(5):
            while call.status != "in-progress":
                await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        await start(world, call.report.call_sid)
        await streaming(call)
        report = await task
    assert report.ok, report.problem
    assert 2 <= report.streams[0].first_frame < 400


async def test_a_call_that_is_not_in_progress_has_no_stream(world: World) -> None:
    async with world.ringing() as (call, _):
        pass
    assert await refused(world, call.report.call_sid) == (400, 21220)
    assert await refused(world, "CA" + "9" * 32) == (404, 20404)


async def test_names_are_had_once_and_four_tracks_are_all(world: World) -> None:
    async with world.ringing() as (call, _):
        sid = call.report.call_sid
        assert await refused(world, sid, name="asr-1") == (400, 20001)
        first = await start(world, sid, name="a")
        await start(world, sid, name="b", track="outbound_track")
        assert await refused(world, sid, name="c") == (400, 20001)
        stream = world.twilio.client.calls(sid).streams(first.sid)
        await world.twilio.ask(lambda _: stream.update(status="stopped"))
        async with asyncio.timeout(5):
            await world.bridge.socket_over.wait()
        assert await refused(world, sid, name="a") == (400, 20001)
        await start(world, sid, name="c")
        assert await refused(world, sid, name="d", track="both_tracks") == (400, 20001)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"url": "https://bridge.example.com/"}, 31922),
        ({"url": "ws://bridge.example.com/"}, 31922),
        ({"url": "/twilio/media"}, 31922),
        ({"track": "all"}, 31941),
        ({"status_callback": "here"}, 21609),
        ({"status_callback_method": "PUT"}, 21403),
        ({"parameter1_value": "k9"}, 20001),
        ({"parameter1_name": "a", "parameter1_value": "b" * 499}, 20001),
    ],
)
async def test_a_stream_that_cannot_be(world: World, wrong: dict[str, str], code: int) -> None:
    async with world.ringing() as (call, _):
        assert await refused(world, call.report.call_sid, **wrong) == (400, code)
        assert len(call.report.streams) == 1


async def test_a_broken_socket_is_told_and_nothing_is_opened_again(
    world: World, bridge: StrictBridge
) -> None:
    async def cut(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "media" and ws._req is not None and ws._req.transport is not None:
            ws._req.transport.abort()

    bridge.on_message = cut
    async with world.ringing(400) as (call, task):
        report = await task
    assert bridge.stream_events() == ["stream-started", "stream-error"]
    assert bridge.forms[-1][1]["StreamError"].startswith("31903")
    assert len(report.streams) == 1
    assert call.ended_at is not None
    assert call.answered_at is not None
    assert call.ended_at - call.answered_at > 0.3  # 400 frames at twenty times real time are 0.4 s


async def test_a_refused_upgrade_does_not_end_the_call(world: World, bridge: StrictBridge) -> None:
    bridge.media_status = 503
    async with world.ringing(10_000, streams=0) as (call, _):
        async with asyncio.timeout(5):
            while "stream-error" not in bridge.stream_events():
                await asyncio.sleep(0.005)
        bridge.media_status = None
        await start(world, call.report.call_sid)
        await streaming(call, 2)
    assert bridge.forms[1][1]["StreamError"].startswith("31920")


async def test_a_stopped_stream_of_a_document_leaves_the_call_alone(
    world: World, bridge: StrictBridge
) -> None:
    bridge.resume_twiml = "<Response><Stop><Stream name='asr-1'/></Stop><Pause length='60'/></Response>"
    async with world.ringing() as (call, _):
        await world.twilio.ask(
            lambda client: client.calls(call.report.call_sid).update(url=f"{PUBLIC}/twilio/resume")
        )
        async with asyncio.timeout(5):
            await bridge.socket_over.wait()
        assert call.status == "in-progress"
    assert bridge.stream_events() == ["stream-started", "stream-stopped"]


async def test_after_connect_the_next_verb_follows_when_the_bridge_closes(
    world: World, bridge: StrictBridge
) -> None:
    async def close(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "media" and len(bridge.upgrades) == 1:
            await ws.close(code=1001)

    bridge.twiml, bridge.on_message = CONNECT, close
    bridge.resume_twiml = "<Response><Pause length='60'/></Response>"
    async with world.ringing(400) as (call, task):
        report = await task
    assert report.ok, report.problem
    assert [document.url for document in report.documents] == [
        f"{PUBLIC}/twilio/voice",
        f"{PUBLIC}/twilio/resume",
    ]
    assert call.ended_at is not None
    assert call.answered_at is not None
    assert call.ended_at - call.answered_at > 0.3


async def test_a_redirect_from_outside_leaves_the_connect_and_ends_its_stream(
    world: World, bridge: StrictBridge
) -> None:
    bridge.twiml = CONNECT
    async with world.ringing() as (call, _):
        await world.twilio.ask(
            lambda client: client.calls(call.report.call_sid).update(url=f"{PUBLIC}/twilio/resume")
        )
        await streaming(call, 2)
        async with asyncio.timeout(5):
            await bridge.socket_over.wait()
        assert bridge.close_codes == [1000]
    assert [message["streamSid"] for message in bridge.messages if message["event"] == "stop"] == [
        stream.stream_sid for stream in call.report.streams
    ]
