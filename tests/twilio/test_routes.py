import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest
from prometheus_client import REGISTRY

from bridge.local.twilio.script import Digit, Script
from bridge.outbox.outbox import OutboxDown
from bridge.twilio import gate as gate_module
from bridge.twilio import routes as module
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, Setup, running
from tests.doubles.numbered import NumberedWhisper, speech

CA = "CA" + "3" * 32
FORM = {
    "CallSid": CA,
    "AccountSid": ACCOUNT.sid,
    "From": "+15550100",
    "To": "+15550199",
    "Direction": "inbound",
}


@asynccontextmanager
async def house(directory: Path, **sections: Any) -> AsyncIterator[tuple[Setup, aiohttp.ClientSession]]:
    async with (
        NumberedWhisper() as whisper,
        running(directory, whisper.url, **sections) as setup,
        aiohttp.ClientSession() as client,
    ):
        yield setup, client


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def post(
    setup: Setup,
    client: aiohttp.ClientSession,
    path: str,
    form: dict[str, str] | None = None,
    signature: str = "",
) -> tuple[int, str]:
    form = FORM if form is None else form
    signed = {"X-Twilio-Signature": signature or ACCOUNT.signature(PUBLIC_URL + path, form)}
    async with client.post(setup.url + path, data=form, headers=signed) as answer:
        return answer.status, await answer.text()


async def token_of(setup: Setup, client: aiohttp.ClientSession, form: dict[str, str] | None = None) -> str:
    _, text = await post(setup, client, "/twilio/voice", form)
    parameter = ET.fromstring(text).find(".//Parameter")
    assert parameter is not None
    return parameter.attrib["value"]


def start(token: str | None, stream: str = "MZ" + "1" * 32, **changes: Any) -> str:
    body = {
        "streamSid": stream,
        "accountSid": ACCOUNT.sid,
        "callSid": CA,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"tenant": "acme"} | ({} if token is None else {"bridge_token": token}),
    } | changes
    return json.dumps({"event": "start", "sequenceNumber": "1", "streamSid": stream, "start": body})


def media(stream: str, timestamp: int) -> str:
    body = {"track": "inbound", "chunk": "1", "timestamp": str(timestamp), "payload": "f39/" * 53 + "fw=="}
    return json.dumps({"event": "media", "sequenceNumber": "2", "streamSid": stream, "media": body})


def upgrade(setup: Setup, client: aiohttp.ClientSession) -> Any:
    url = PUBLIC_URL.replace("https", "wss") + "/twilio/media"
    return client.ws_connect(
        setup.url + "/twilio/media", headers={"X-Twilio-Signature": ACCOUNT.signature(url)}
    )


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/resume", "/twilio/stream-status"])
async def test_every_post_needs_a_signature(tmp_path: Path, path: str) -> None:
    async with house(tmp_path) as (setup, client):
        before = metric("bridge_refusals_total", why="signature")
        async with client.post(setup.url + path, data=FORM) as answer:
            assert answer.status == 403
        assert (await post(setup, client, path, signature="wrong"))[0] == 403
        assert (await post(setup, client, path))[0] in {200, 204}
        assert metric("bridge_refusals_total", why="signature") == before + 2


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "wrong"}, {"X-Twilio-Signature": "x" * 5000}])
async def test_the_upgrade_is_refused_before_it_happens(tmp_path: Path, headers: dict[str, str]) -> None:
    async with house(tmp_path) as (setup, client):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(setup.url + "/twilio/media", headers=headers)
        assert refused.value.status == 403


async def test_a_body_that_is_too_large_or_no_form(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        for data, status in ((b"a=" + b"x" * 70_000, 413), (b"\xff\xfe{}", 403)):
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            async with client.post(setup.url + "/twilio/voice", data=data, headers=headers) as answer:
                assert answer.status == status
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with client.post(setup.url + "/twilio/voice", data=b"--y\r\n", headers=headers) as answer:
            assert answer.status == 403


async def test_the_call_flow_of_each_number(tmp_path: Path) -> None:
    numbers = [
        {"number": "+15550199", "then": "https://ivr.example.com/x"},
        {"number": "+15550198", "mode": "connect"},
    ]
    async with house(tmp_path, numbers=numbers) as (setup, client):
        _, text = await post(setup, client, "/twilio/voice")
        assert [verb.tag for verb in ET.fromstring(text)] == ["Start", "Redirect"]
        _, text = await post(setup, client, "/twilio/resume")
        assert [verb.text for verb in ET.fromstring(text)] == ["https://ivr.example.com/x"]
        _, text = await post(setup, client, "/twilio/voice", FORM | {"To": "+15550198"})
        assert [verb.tag for verb in ET.fromstring(text)] == ["Connect", "Redirect"]
        outbound = FORM | {"From": "+15550199", "To": "+15550123", "Direction": "outbound-api"}
        _, text = await post(setup, client, "/twilio/voice", outbound)
        assert ET.fromstring(text)[-1].text == "https://ivr.example.com/x"


@pytest.mark.parametrize("form", [{"CallSid": ""}, {"CallSid": "../x"}, {"AccountSid": "AC" + "9" * 32}])
async def test_a_call_that_cannot_be_streamed_goes_on_without(tmp_path: Path, form: dict[str, str]) -> None:
    async with house(tmp_path) as (setup, client):
        status, text = await post(setup, client, "/twilio/voice", FORM | form)
        assert status == 200
        assert [verb.tag for verb in ET.fromstring(text)] == ["Pause", "Redirect"]


async def test_while_draining_calls_go_on_without_a_stream(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        setup.bridge.draining = True
        status, text = await post(setup, client, "/twilio/voice")
        assert (status, [verb.tag for verb in ET.fromstring(text)]) == (200, ["Pause", "Redirect"])
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await upgrade(setup, client)
        assert refused.value.status == 503
        assert refused.value.headers is not None
        assert refused.value.headers["Retry-After"]
        async with client.get(setup.url + "/readyz") as answer:
            assert answer.status == 503


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (lambda _: start(None), "token_missing"),
        (lambda token: start(token + "x"), "token_forged"),
        (lambda token: start(token, callSid="CA" + "4" * 32), "token_other_call"),
        (lambda token: start(token, accountSid="AC" + "4" * 32), "token_account"),
        (
            lambda token: start(token, mediaFormat={"encoding": "audio/l16", "sampleRate": 8000}),
            "media_format",
        ),
        (lambda token: start(token, callSid="CA../x"), "start_ids"),
    ],
)
async def test_streams_that_are_refused_with_1008_and_cause_no_event(
    tmp_path: Path, message: Any, why: str
) -> None:
    async with house(tmp_path) as (setup, client):
        token = await token_of(setup, client)
        before = metric("bridge_refusals_total", why=why)
        async with upgrade(setup, client) as socket:
            await socket.send_str('{"event":"connected"}')
            await socket.send_str(message(token))
            closed = await socket.receive(timeout=5)
        assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1008)
        assert metric("bridge_refusals_total", why=why) == before + 1
        assert len(setup.bridge.calls) == 0
        assert setup.receiver.received == []


async def test_a_token_admits_one_stream_however_many_try(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        token = await token_of(setup, client)
        sockets = [await upgrade(setup, client) for _ in range(10)]
        await asyncio.gather(*(socket.send_str(start(token)) for socket in sockets))
        closed = 0
        for socket in sockets:
            try:
                message = await socket.receive(timeout=0.3)
                closed += message.data == 1008
            except TimeoutError:
                pass
            await socket.close()
        assert closed == 9


async def test_a_socket_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_S", 0.1)
    async with house(tmp_path) as (setup, client), upgrade(setup, client) as socket:
        await socket.send_str('{"event":"connected"}')
        closed = await socket.receive(timeout=5)
        assert closed.data == 1008


async def test_an_oversized_message_ends_that_stream_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        call = setup.call({"inbound": speech(range(8))}, Script(speed=4))
        other = asyncio.create_task(call.run())
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            await socket.send_str(" " * 65_536)  # the largest that is read
            await socket.send_str("x" * 65_537)
            closed = await socket.receive(timeout=5)
            assert closed.data == 1009
        report = await other
        assert report.ok, report.problem
        events = await setup.ended(report.call_sid)
        assert [w for e in events if e.type == "transcript.final" for w in e.data["text"].split()] == [
            f"w{n}" for n in range(8)
        ]
        ended = (await setup.ended(CA))[-1]
        assert ended.data["reason"] == "disconnected"


async def test_garbage_is_counted_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        before = metric("bridge_twilio_messages_ignored_total", why="malformed")
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            for garbage in ("", "null", "{", "[[[["):
                await socket.send_str(garbage)
            await socket.send_bytes(b"binary")
            await socket.send_str('{"event":"stop","streamSid":"' + "MZ" + "1" * 32 + '"}')
            assert (await socket.receive(timeout=5)).data == 1000
        events = await setup.ended(CA)
        assert [event.type for event in events] == ["call.started", "call.ended"]
        assert events[-1].data["reason"] == "hangup"
        assert events[-1].data["parameters"] == {"tenant": "acme"}
        assert metric("bridge_twilio_messages_ignored_total", why="malformed") == before + 4


async def test_status_callback_ends_a_stream_whose_socket_never_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STATUS_GRACE_S", 0.1)
    async with house(tmp_path) as (setup, client), upgrade(setup, client) as socket:
        await socket.send_str(start(await token_of(setup, client)))
        await setup.receiver.wait_for(lambda r: r.type == "call.started")
        for stream in ("MZother", "MZ" + "1" * 32, "MZ" + "1" * 32):
            form = FORM | {"StreamSid": stream, "StreamEvent": "stream-stopped"}
            assert (await post(setup, client, "/twilio/stream-status", form))[0] == 204
        ended = (await setup.ended(CA))[-1]
        assert ended.data["reason"] == "stream_stopped"
        assert (await socket.receive(timeout=5)).data == 1000
        unknown = {"CallSid": "CA" + "7" * 32, "StreamEvent": "stream-error"}
        assert (await post(setup, client, "/twilio/stream-status", unknown))[0] == 204


async def test_a_second_stream_takes_the_call_over(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client), upgrade(setup, client) as first:
        await first.send_str(start(await token_of(setup, client)))
        await setup.receiver.wait_for(lambda r: r.type == "call.started")
        async with upgrade(setup, client) as second:
            await second.send_str(start(await token_of(setup, client), stream="MZ" + "2" * 32))
            assert (await first.receive(timeout=5)).data == 1000
            assert len(setup.bridge.calls) == 1
            await second.send_str(media("MZ" + "2" * 32, 20))
            await second.send_str('{"event":"stop"}')
        events = await setup.ended(CA)
        assert events[-1].data["duration_ms"] == 20
        assert [e.type for e in events] == ["call.started", "call.ended"]
        assert events[-1].data["stream_sid"] == "MZ" + "2" * 32


async def test_a_call_that_has_ended_does_not_start_again(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        spare = await token_of(setup, client)
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            await socket.send_str('{"event":"stop"}')
        await setup.ended(CA)
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(spare))
            assert (await socket.receive(timeout=5)).data == 1008
        _, text = await post(setup, client, "/twilio/voice")
        assert [verb.tag for verb in ET.fromstring(text)] == ["Pause", "Redirect"]


async def test_connect_mode_brings_digits_and_goes_on_afterwards(tmp_path: Path) -> None:
    async with house(tmp_path, twilio={"mode": "connect"}) as (setup, _):
        script = Script(speed=4, digits=(Digit(500, "5"), Digit(900, "#")))
        report = await setup.call({"inbound": speech(range(6))}, script).run()
        assert report.ok, report.problem
        events = await setup.ended(report.call_sid)
        assert [e.data["digit"] for e in events if e.type == "call.dtmf"] == ["5", "#"]
        assert events[0].data["tracks"] == ["inbound"]


async def test_without_signatures_a_loopback_bridge_takes_streams_without_a_token(tmp_path: Path) -> None:
    twilio = {"verify_signatures": False, "account_sid": "", "auth_token": ""}
    async with house(tmp_path, twilio=twilio) as (setup, client):
        async with client.ws_connect(setup.url + "/twilio/media") as socket:
            await socket.send_str(start(None))
            await socket.send_str('{"event":"stop"}')
        events = await setup.ended(CA)
        assert events[0].data["from"] == ""


async def test_a_stream_that_says_start_after_the_draining_began_is_not_taken(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client), upgrade(setup, client) as socket:
        token = await token_of(setup, client)
        setup.bridge.draining = True
        await socket.send_str(start(token))
        assert (await socket.receive(timeout=5)).data == 1008
        assert len(setup.bridge.calls) == 0


async def test_a_format_that_utf8_cannot_carry_is_refused_too(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client), upgrade(setup, client) as socket:
        await socket.send_str(start(await token_of(setup, client), mediaFormat={"encoding": "\ud800é" * 50}))
        assert (await socket.receive(timeout=5)).data == 1008


async def test_a_body_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "BODY_S", 0.1)
    async with house(tmp_path) as (setup, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.bridge.port)
        writer.write(
            b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\na=1"
        )
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()


async def test_a_token_is_not_admitted_again_after_a_restart(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, aiohttp.ClientSession() as client:
        async with running(tmp_path, whisper.url) as setup:
            token = await token_of(setup, client)
            async with upgrade(setup, client) as socket:
                await socket.send_str(start(token))
                await socket.send_str('{"event":"stop"}')
            await setup.ended(CA)
        async with running(tmp_path, whisper.url) as setup, upgrade(setup, client) as socket:
            await socket.send_str(start(token))
            assert (await socket.receive(timeout=5)).data == 1008
            assert setup.receiver.received == []


async def test_a_stream_that_comes_while_the_outbox_is_down_is_transcribed_once_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = True

    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        outbox = setup.bridge._services.outbox
        for name in ("spend", "own_call", "publish"):
            works = getattr(outbox, name)

            async def moody(*args: Any, works: Any = works, **options: Any) -> Any:
                if down:
                    raise OutboxDown("the disk is away")
                return await works(*args, **options)

            monkeypatch.setattr(outbox, name, moody)
        # The gate has the method that was there when it was made.
        setup.bridge.twilio._gate._spend = outbox.spend
        report = await setup.call({"inbound": speech(range(40, 44))}).run()
        down = False
        events = await setup.ended(report.call_sid)
    assert [event.type for event in events] == ["call.started", "transcript.final", "call.ended"]
    assert events[1].data["text"] == "w40 w41 w42 w43"
