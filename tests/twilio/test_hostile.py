"""What no telephone call does: everything that reaches the bridge from outside, wrong in every way that is known.

Each time nothing fails but the socket or the request itself, it is counted, and a call beside it goes on unharmed.
"""

import asyncio
import gzip
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
import yarl

from bridge.local.twilio.account import new_sid
from bridge.twilio import socket as socket_module
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, Setup
from tests.doubles.switchboard import (
    FORM,
    MZ,
    Raw,
    close_code,
    frame,
    house,
    media,
    metric,
    post,
    raw,
    start,
    token_of,
    until,
    upgrade,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
STOP = json.dumps({"event": "stop", "streamSid": MZ, "stop": {}})


@dataclass
class House:
    """A bridge that outlives all of these tests."""

    setup: Setup
    client: aiohttp.ClientSession

    async def started(self) -> tuple[str, str]:
        """A new call, and the `start` of its stream."""
        call_sid = new_sid("CA")
        token = await token_of(self.setup, self.client, FORM | {"CallSid": call_sid})
        return call_sid, start(token, callSid=call_sid)

    async def raw_http(self, request: bytes) -> list[int]:
        """The statuses of the answers to some bytes; the connection is closed behind them."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.setup.bridge.port)
        try:
            writer.write(request)
            async with asyncio.timeout(5):
                first = await reader.readuntil(b"\r\n")
                writer.write_eof()
                answer = first + await reader.read()
        finally:
            writer.transport.abort()
        return [int(line[9:12]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def all_day(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with house(tmp_path_factory.mktemp("bridge"), twilio={"max_speed": 1}) as (setup, client):
        yield House(setup, client)


@pytest_asyncio.fixture(loop_scope="module")
async def bridge(all_day: House, caplog: pytest.LogCaptureFixture) -> AsyncIterator[House]:
    """The bridge, with a call beside that must not notice anything."""
    defects = metric("bridge_defects_total")  # of other tests
    call_sid, text = await all_day.started()
    async with upgrade(all_day.setup, all_day.client) as socket:
        await socket.send_str(text)
        await socket.send_str(media(MZ, 0))
        yield all_day
        await socket.send_str(media(MZ, 20))
        await socket.send_str(STOP)
        assert (await socket.receive(timeout=5)).data == 1000
    ended = (await all_day.setup.ended(call_sid))[-1]
    assert (ended.data["reason"], ended.data["duration_ms"]) == ("hangup", 40)
    assert [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}] == []
    assert metric("bridge_defects_total") == defects


@asynccontextmanager
async def streaming(bridge: House) -> AsyncIterator[tuple[Raw, str]]:
    """A stream that has begun, byte by byte, and its call."""
    call_sid, text = await bridge.started()
    async with raw(bridge.setup) as (reader, writer):
        writer.write(frame(TEXT, text.encode()))
        yield (reader, writer), call_sid


def changed(**media_fields: object) -> str:
    """A media message with other fields."""
    message = json.loads(media(MZ, 20))
    message["media"] |= media_fields
    return json.dumps(message)


def without(field: str) -> str:
    """A media message that lacks one."""
    message = json.loads(media(MZ, 20))
    del message["media"][field]
    return json.dumps(message)


def numbered(**fields: object) -> str:
    """A media message whose counters are odd."""
    return json.dumps(json.loads(media(MZ, 20)) | fields)


IGNORED = [
    ("", "malformed"),
    ("null", "malformed"),
    ("[]", "malformed"),
    ("17", "malformed"),
    ('"media"', "malformed"),
    ("{", "malformed"),
    ("[" * 10_000, "malformed"),
    ('{"a":' * 10_000, "malformed"),
    ('{"event":"media","event":"mark"}', "mark"),
    ('{"event":NaN}', "unknown"),
    ('{"event":"\\ud800"}', "unknown"),
    ("{}", "unknown"),
    ('{"event":17}', "unknown"),
    ('{"event":"transcription"}', "unknown"),
    ('{"event":"connected"}', "connected"),
    ('{"event":"mark","mark":7}', "mark"),
    ('{"event":"dtmf"}', "dtmf_shape"),
    ('{"event":"dtmf","dtmf":{"digit":"55"}}', "dtmf_shape"),
    ('{"event":"dtmf","dtmf":{"digit":5}}', "dtmf_shape"),
    ('{"event":"stop","streamSid":"MZother"}', "other_stream"),
    ('{"event":"media"}', "media_shape"),
    ('{"event":"media","media":[]}', "media_shape"),
    (changed(payload="not base64!"), "media_base64"),
    (changed(payload=""), "media_size"),
    (changed(payload=None), "media_shape"),
    (changed(payload=17), "media_shape"),
    (changed(payload="/" * 10_668), "media_size"),
    (changed(track="both"), "media_track"),
    (changed(track=None), "media_track"),
    (without("payload"), "media_shape"),
    (without("track"), "media_track"),
    (start("x"), "second_start"),
    (start("x", callSid="CA" + "9" * 32), "second_start"),
    (numbered(streamSid="MZother"), "other_stream"),
]


@pytest.mark.parametrize(("text", "why"), IGNORED, ids=[f"{why}{n}" for n, (_, why) in enumerate(IGNORED)])
async def test_a_message_that_means_nothing_is_counted_and_the_stream_goes_on(
    bridge: House, text: str, why: str
) -> None:
    before = metric("bridge_twilio_messages_ignored_total", why=why)
    async with streaming(bridge) as ((reader, writer), call_sid):
        for each in (text, media(MZ, 20), STOP):
            writer.write(frame(TEXT, each.encode()))
        assert await close_code(reader) == 1000
    ended = (await bridge.setup.ended(call_sid))[-1]
    assert (ended.data["reason"], ended.data["duration_ms"]) == ("hangup", 20)
    assert metric("bridge_twilio_messages_ignored_total", why=why) == before + 1


KEPT = {
    "newlines": changed(payload="f39/\n" * 53 + "fw=="),
    "url alphabet": changed(payload="f39_" * 53 + "fw"),
    "no padding": changed(payload="f39/" * 53 + "fw"),
    "no timestamp": without("timestamp"),
    "negative timestamp": changed(timestamp=-1),
    "float timestamp": changed(timestamp="1e9"),
    "huge timestamp": changed(timestamp=2**63),
    "timestamp is NaN": changed(timestamp=float("nan")),
    "no chunk": without("chunk"),
    "odd chunk": changed(chunk="abc"),
    "odd sequence number": numbered(sequenceNumber=1.5),
    "sequence number that decreases": numbered(sequenceNumber="0"),
    "lone surrogate in a name": numbered(**{"\ud800": "\ud800"}),
}


@pytest.mark.parametrize("text", KEPT.values(), ids=KEPT)
async def test_audio_that_can_be_read_is_kept_whatever_else_is_wrong(bridge: House, text: str) -> None:
    async with streaming(bridge) as ((reader, writer), call_sid):
        for each in (media(MZ, 0), text, STOP):
            writer.write(frame(TEXT, each.encode()))
        assert await close_code(reader) == 1000
    assert (await bridge.setup.ended(call_sid))[-1].data["duration_ms"] == 40


@pytest.mark.parametrize(("payload", "samples"), [("/w==", 1), ("////" * 53 + "/////w==", 163)])
async def test_audio_of_any_size(bridge: House, payload: str, samples: int) -> None:
    async with streaming(bridge) as ((reader, writer), call_sid):
        for each in (changed(payload=payload), STOP):
            writer.write(frame(TEXT, each.encode()))
        assert await close_code(reader) == 1000
    assert (await bridge.setup.ended(call_sid))[-1].data["duration_ms"] == samples // 8


async def test_a_start_comes_first_or_after_media_and_twice_a_stop_is_one(bridge: House) -> None:
    call_sid, text = await bridge.started()
    async with raw(bridge.setup) as (reader, writer):
        for each in (media(MZ, 0), text, '{"event":"connected"}', STOP, STOP, media(MZ, 40)):
            writer.write(frame(TEXT, each.encode()))
        assert await close_code(reader) == 1000
    assert (await bridge.setup.ended(call_sid))[-1].data["duration_ms"] == 20


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"\xff\xfe"), 1007),
        (frame(TEXT, b" " * 65_537), 1009),
        (frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"), 1002),
        (frame(0, b"{}"), 1002),
        (frame(TEXT, b"{}", rsv=4), 1002),
        (frame(3, b""), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"", fin=False), 1002),
        (frame(CLOSE, struct.pack("!H", 999)), 1002),
        (frame(CLOSE, struct.pack("!H", 1005)), 1002),
        (frame(CLOSE, b"x"), 1002),
        (frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), 1007),
        (frame(CLOSE, b""), 0),
        (bytes([0x81, 0xFF]) + struct.pack("!Q", 2**63) + bytes(4), 1009),
    ],
    ids=lambda value: value[:6].hex() if isinstance(value, bytes) else str(value),
)
async def test_bytes_that_are_no_websocket_end_that_stream_alone(
    bridge: House, sent: bytes, code: int
) -> None:
    why = {1009: "message_size", 0: "closed"}.get(code, "no_websocket")
    before = metric("bridge_refusals_total", why=why)
    async with streaming(bridge) as ((reader, writer), _):
        writer.write(sent)
        assert await close_code(reader) == code
        writer.write(frame(CLOSE, struct.pack("!H", code)))
        await until(lambda: metric("bridge_refusals_total", why=why) == before + (code != 0))


@pytest.mark.parametrize(
    "sent",
    [
        frame(BINARY, b"\x00" * 160),
        frame(TEXT, b" ", fin=False) + frame(0, b" ", fin=False) * 10_000 + frame(0, b"{}"),
        frame(PING, b"x" * 125) * 100,
        frame(10, b"an answer to nothing"),
        frame(TEXT, b"{}", masked=False),
    ],
    ids=["binary", "10,000 fragments", "pings", "pong", "not masked"],
)
async def test_frames_that_are_odd_and_no_harm(bridge: House, sent: bytes) -> None:
    async with streaming(bridge) as ((reader, writer), call_sid):
        writer.write(sent)
        writer.write(frame(TEXT, STOP.encode()))
        assert await close_code(reader) == 1000
    assert (await bridge.setup.ended(call_sid))[-1].data["reason"] == "hangup"


async def test_a_frame_that_comes_byte_by_byte(bridge: House) -> None:
    async with streaming(bridge) as ((reader, writer), call_sid):
        for byte in frame(TEXT, STOP.encode()):
            writer.write(bytes([byte]))
            await writer.drain()
        assert await close_code(reader) == 1000
    assert (await bridge.setup.ended(call_sid))[-1].data["reason"] == "hangup"


async def test_a_connection_that_is_reset(bridge: House) -> None:
    async with streaming(bridge) as ((_, writer), call_sid):
        await bridge.setup.receiver.wait_for(lambda r: r.type == "call.started" and r.call_sid == call_sid)
        writer.transport.abort()


async def test_a_peer_that_is_gone_without_a_word_is_found_by_its_missing_pong(
    bridge: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_module, "HEARTBEAT_S", 0.1)
    before = metric("bridge_refusals_total", why="no_pong")
    async with raw(bridge.setup) as (reader, writer):
        writer.write(frame(TEXT, b'{"event":"connected"}'))
        assert await close_code(reader) == 0
    assert metric("bridge_refusals_total", why="no_pong") == before + 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ({"Sec-WebSocket-Key": ""}, 400),
        ({"Sec-WebSocket-Key": "short"}, 400),
        ({"Sec-WebSocket-Version": "12"}, 400),
        ({"Upgrade": "h2c"}, 400),
        ({"Connection": "keep-alive"}, 400),
        ({"X-Twilio-Signature": ""}, 403),
        ({"X-Twilio-Signature": "x" * 8000}, 403),
        ({"X-Twilio-Signature": "é"}, 403),
        ({"X-Twilio-Signature": "\x01"}, 400),
        ({"Host": "evil.example.com"}, 101),
        ({"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example.com"}, 101),
        ({"Sec-WebSocket-Extensions": "permessage-deflate"}, 101),
        ({"Sec-WebSocket-Protocol": "chat"}, 101),
    ],
    ids=str,
)
async def test_an_upgrade_is_answered_before_anything_is_opened(
    bridge: House, head: dict[str, str], status: int
) -> None:
    url = PUBLIC_URL.replace("https", "wss") + "/twilio/media"
    headers = {
        "Host": "x",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "A" * 22 + "==",
        "X-Twilio-Signature": ACCOUNT.signature(url),
    } | head
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    before = metric("bridge_http_refusals_total", status="403")
    assert await bridge.raw_http(f"GET /twilio/media HTTP/1.1\r\n{lines}\r\n".encode()) == [status]
    assert metric("bridge_http_refusals_total", status="403") == before + (status == 403)


async def test_two_signatures_are_none_even_if_one_is_right(bridge: House) -> None:
    signed = ACCOUNT.signature(PUBLIC_URL + "/twilio/voice", {"CallSid": "CA1"})
    twice = f"X-Twilio-Signature: {signed}\r\n" * 2
    body = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\r\nCallSid=CA1"
    assert await bridge.raw_http(f"POST /twilio/voice HTTP/1.1\r\nHost: x\r\n{twice}{body}".encode()) == [403]


FORM_TYPE = b"Content-Type: application/x-www-form-urlencoded\r\n"
POST = b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\n" + FORM_TYPE


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (POST + b"X: " + b"x" * 101_000 + b"\r\n\r\n", [400]),
        (POST + b"A: 1\r\n" * 500 + b"\r\n", [400]),
        (POST + b"Content-Length: 65537\r\n\r\n" + b"x" * 65_537, [413]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n", [403]),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"fffffffffffffffff\r\n", [400]),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", [400]),
        (POST + b"Content-Length: -1\r\n\r\n", [400]),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", [400]),
        (POST + "Content-Length: ٣\r\n\r\nabc".encode(), [400]),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"DELETE /twilio/voice HTTP/1.1\r\nHost: x\r\n\r\n", [405]),
        (b"BREW /twilio/voice HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        (b"POST http://evil.example.com/twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", [403]),
        (b"POST //twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", [404]),
        (b"GET /%2e%2e/twilio/media HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /twilio/media%00 HTTP/1.1\r\nHost: x\r\n\r\n", [404]),
        (b"GET /twilio/media\xff HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        (b"GET /twilio/media?\xff=%ff HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        (b"GET /twilio/media?%ff=%ff HTTP/1.1\r\nHost: x\r\n\r\n", [403]),
        (b"GET /healthz HTTP/1.0\r\n\r\n", [200]),
        (b"POST /twilio/voice HTTP/1.0\r\nContent-Length: 0\r\n\r\n", [403]),
        (b"GET /twilio/media HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x00junk", [403]),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", [400]),
    ],
    ids=lambda value: value[:40].decode("latin-1") + str(len(value)) if isinstance(value, bytes) else str(value),
)  # fmt: skip
async def test_requests_that_are_wrong_are_answered(
    bridge: House, request_: bytes, statuses: list[int]
) -> None:
    assert await bridge.raw_http(request_) == statuses


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_grows_when_it_is_unpacked(bridge: House, encoding: str) -> None:
    packed = (gzip.compress if encoding == "gzip" else zlib.compress)(bytes(50_000_000))
    headers = {"Content-Encoding": encoding, "Content-Type": "application/x-www-form-urlencoded"}
    async with bridge.client.post(bridge.setup.url + "/twilio/voice", data=packed, headers=headers) as answer:
        assert answer.status == 413


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({f"field{number}": "1" for number in range(10_000)}, 413),
        ({f"field{number}": "1" for number in range(900)}, 200),
        ({"CallSid": "CA\x00"}, 200),
        ({"CallSid": "CA1\r\nX-Evil: 1"}, 200),
        ({"CallSid": "CA" + "9" * 60_000}, 200),
        ({"From": "\x00\r\n<Redirect>", "To": "&\ud7ff"}, 200),
        ({}, 200),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_forms_that_are_signed_and_odd_get_a_call_flow(
    bridge: House, form: dict[str, str], status: int
) -> None:
    answered, text = await post(bridge.setup, bridge.client, "/twilio/voice", form)
    assert answered == status
    assert "Stream" not in text
    assert "Evil" not in text


@pytest.mark.parametrize("query", ["", "?n=-1", "?n=1000000000", "?n=", "?n=1&n=2", "?n=%ff", "?n=\u0663"])
async def test_resume_goes_on_whatever_its_query_is(bridge: House, query: str) -> None:
    form = FORM | {"CallSid": new_sid("CA")}
    path = f"/twilio/resume{query}"
    signed = {"X-Twilio-Signature": ACCOUNT.signature(PUBLIC_URL + path, form)}
    target = yarl.URL(bridge.setup.url + path, encoded=True)
    async with bridge.client.post(target, data=form, headers=signed) as answer:
        assert answer.status == (400 if "\u0663" in query else 200)


async def test_status_callbacks_come_for_anything_at_any_time_and_often(bridge: House) -> None:
    unknown = []
    for event in ("stream-stopped", "stream-error", "stream-started", "", "x" * 1000):
        unknown.append(new_sid("CA"))
        form = {"CallSid": unknown[-1], "StreamSid": "MZ1", "StreamEvent": event}
        answers = await asyncio.gather(
            *(post(bridge.setup, bridge.client, "/twilio/stream-status", form) for _ in range(20))
        )
        assert {status for status, _ in answers} == {204}
    assert not [each for each in bridge.setup.receiver.received if each.call_sid in unknown]
