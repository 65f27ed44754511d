import asyncio
import base64
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web

from bridge.errors import UsageError
from bridge.local.twilio import (
    Account,
    Burst,
    CallReport,
    Digit,
    Hole,
    Lateness,
    Script,
    SimulatedCall,
    Track,
)
from tests.doubles.strict_bridge import CONNECT, PUBLIC, START, TOKEN, StrictBridge

ACCOUNT = Account("AC22222222222222222222222222222222", TOKEN)
FAST = 50.0


def sound(frames: int, first: int = 0) -> bytes:
    """Frame n is 160 times the byte n, so that a test sees which audio arrived."""
    return b"".join(bytes([(first + n) % 256]) * 160 for n in range(frames))


AUDIO: Mapping[Track, bytes] = {"inbound": sound(50), "outbound": sound(50, 100)}


async def call(bridge: StrictBridge, audio: Mapping[Track, bytes] = AUDIO, **script: Any) -> CallReport:
    script.setdefault("speed", FAST)
    return await SimulatedCall(
        ACCOUNT, bridge.voice_url, audio, Script(**script), public_url=bridge.public
    ).run()


def first_bytes(media: list[dict[str, str]]) -> list[int]:
    return [base64.b64decode(message["payload"])[0] for message in media]


async def test_the_voice_webhook_is_a_signed_form_with_real_fields(bridge: StrictBridge) -> None:
    report = await call(bridge)

    path, form = bridge.forms[0]
    assert path == "/twilio/voice"
    assert report.voice_status == 200
    assert re.fullmatch(r"CA[0-9a-f]{32}", form["CallSid"])
    assert form["CallSid"] == report.call_sid
    assert form["FromCity"] == ""
    assert {name: form[name] for name in ("AccountSid", "ApiVersion", "CallStatus", "Direction")} == {
        "AccountSid": ACCOUNT.sid,
        "ApiVersion": "2010-04-01",
        "CallStatus": "ringing",
        "Direction": "inbound",
    }
    assert (form["From"], form["Caller"], form["To"], form["Called"]) == ("+15550100",) * 2 + (
        "+15550199",
    ) * 2


async def test_messages_of_a_start_stream_byte_for_byte(bridge: StrictBridge) -> None:
    report = await call(bridge, {"inbound": b"\x00" * 160 + b"\x7f" * 80, "outbound": b""})

    call_sid, sid = report.call_sid, report.stream_sid
    assert re.fullmatch(r"MZ[0-9a-f]{32}", sid)
    assert report.ok, report.problem
    loud, half, silence = (
        base64.b64encode(payload).decode()
        for payload in (b"\x00" * 160, b"\x7f" * 80 + b"\xff" * 80, b"\xff" * 160)
    )
    assert bridge.raw == [
        '{"event":"connected","protocol":"Call","version":"1.0.0"}',
        '{"event":"start","sequenceNumber":"1","start":{"accountSid":"'
        + ACCOUNT.sid
        + '","streamSid":"'
        + sid
        + '",'
        '"callSid":"'
        + call_sid
        + '","tracks":["inbound","outbound"],"mediaFormat":{"encoding":"audio/x-mulaw",'
        '"sampleRate":8000,"channels":1},"customParameters":{"token":"k9"}},"streamSid":"' + sid + '"}',
        '{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1","timestamp":"20",'
        '"payload":"' + loud + '"},"streamSid":"' + sid + '"}',
        '{"event":"media","sequenceNumber":"3","media":{"track":"outbound","chunk":"1","timestamp":"20",'
        '"payload":"' + silence + '"},"streamSid":"' + sid + '"}',
        '{"event":"media","sequenceNumber":"4","media":{"track":"inbound","chunk":"2","timestamp":"40",'
        '"payload":"' + half + '"},"streamSid":"' + sid + '"}',
        '{"event":"media","sequenceNumber":"5","media":{"track":"outbound","chunk":"2","timestamp":"40",'
        '"payload":"' + silence + '"},"streamSid":"' + sid + '"}',
        '{"event":"stop","sequenceNumber":"6","stop":{"accountSid":"'
        + ACCOUNT.sid
        + '","callSid":"'
        + call_sid
        + '"},'
        '"streamSid":"' + sid + '"}',
    ]
    assert bridge.close_codes == [1000]


async def test_the_upgrade_is_signed_over_the_wss_url_and_offers_no_compression(bridge: StrictBridge) -> None:
    await call(bridge)

    (headers,) = bridge.upgrades
    assert headers["X-Twilio-Signature"]
    assert "Sec-WebSocket-Extensions" not in headers


async def test_status_callbacks_tell_start_and_stop(bridge: StrictBridge) -> None:
    report = await call(bridge)

    assert bridge.stream_events() == ["stream-started", "stream-stopped"]
    assert [(callback.event, callback.status) for callback in report.callbacks] == [
        ("stream-started", 204),
        ("stream-stopped", 204),
    ]
    _, form = bridge.forms[-1]
    assert (form["CallSid"], form["StreamSid"], form["StreamName"]) == (
        report.call_sid,
        report.stream_sid,
        "asr-1",
    )
    assert "StreamError" not in form


async def test_status_callbacks_may_get_lost(bridge: StrictBridge) -> None:
    await call(bridge, callbacks=False)

    assert bridge.stream_events() == []


async def test_tracks_alternate_and_count_their_chunks_apart_or_together(bridge: StrictBridge) -> None:
    await call(bridge)
    apart = [message["media"] for message in bridge.messages if message["event"] == "media"]
    bridge.raw.clear()
    await call(bridge, shared_chunks=True)
    together = [message["media"] for message in bridge.messages if message["event"] == "media"]

    assert [media["track"] for media in apart] == ["inbound", "outbound"] * 50
    assert [media["chunk"] for media in apart] == [str(n) for n in range(1, 51) for _ in range(2)]
    assert [media["chunk"] for media in together] == [str(n) for n in range(1, 101)]
    assert first_bytes(bridge.media("outbound")) == list(range(100, 150))


async def test_only_the_track_that_was_asked_for(bridge: StrictBridge) -> None:
    bridge.twiml = START.replace("both_tracks", "outbound_track")

    await call(bridge, first_timestamp_ms=0)

    assert bridge.messages[1]["start"]["tracks"] == ["outbound"]
    assert bridge.media("inbound") == []
    assert [media["timestamp"] for media in bridge.media("outbound")][:3] == ["0", "20", "40"]


async def test_pacing_follows_an_absolute_schedule(bridge: StrictBridge) -> None:
    report = await call(bridge, {"inbound": sound(60)}, speed=2.0)

    # 60 frames at double speed: 0.59 s between the first and the last.
    # (Upper bounds are wide here and below: the machine may be busy, but never early.)
    assert 0.57 <= report.sent[-1] - report.sent[0] < 2
    assert report.first_media_at is not None
    assert bridge.arrivals[2] == pytest.approx(report.first_media_at, abs=1)
    assert 0 <= report.lateness.p50_ms <= report.lateness.p99_ms <= report.lateness.max_ms < 1000
    assert report.sent_at(0) == report.sent_at(19.9) == report.first_media_at
    assert report.sent_at(20) == report.sent[1]
    assert report.sent_at(99_999) == report.sent[-1]


async def test_a_slow_bridge_does_not_make_the_schedule_drift(bridge: StrictBridge) -> None:
    loop = asyncio.get_running_loop()
    loop.call_later(0.1, time.sleep, 0.1)

    report = await call(bridge, {"inbound": sound(50)}, speed=2.0)

    assert report.lateness.max_ms > 50
    assert 0.47 <= report.sent[-1] - report.sent[0] < 2
    assert report.streams[0].late_s[-1] < report.lateness.max_ms / 1000


async def test_a_hole_is_a_jump_of_timestamps_and_its_audio_is_lost(bridge: StrictBridge) -> None:
    await call(bridge, holes=(Hole(200, 400), Hole(800, 100, "outbound")))

    inbound, outbound = bridge.media("inbound"), bridge.media("outbound")
    assert first_bytes(inbound) == [*range(10), *range(30, 50)]
    assert [int(media["timestamp"]) for media in inbound[9:11]] == [200, 620]
    assert [int(media["chunk"]) for media in inbound[9:11]] == [10, 11]
    assert first_bytes(outbound) == [*range(100, 110), *range(130, 140), *range(145, 150)]


async def test_a_burst_comes_late_and_all_at_once_with_continuous_timestamps(bridge: StrictBridge) -> None:
    report = await call(bridge, {"inbound": sound(50)}, bursts=(Burst(200, 400),), speed=2.0)

    media = bridge.media()
    assert [int(one["timestamp"]) for one in media] == list(range(20, 1020, 20))
    held = [report.sent[n] - report.sent[0] for n in range(10, 31)]
    assert 0.29 <= held[0] < 2
    assert held[-1] - held[0] < 0.2  # the schedule would take 0.2 s for them
    assert report.sent[9] - report.sent[0] < held[0]


async def test_hanging_up_in_the_middle_of_a_word(bridge: StrictBridge) -> None:
    report = await call(bridge, hangup_ms=330)

    assert report.ok
    assert first_bytes(bridge.media()) == list(range(17))
    assert bridge.messages[-1]["event"] == "stop"


async def test_a_call_that_ends_without_stop_leaves_the_socket_open(bridge: StrictBridge) -> None:
    last = asyncio.Event()

    async def notice(_: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message.get("sequenceNumber") == "11":
            last.set()

    bridge.on_message = notice
    running = asyncio.create_task(call(bridge, hangup_ms=100, ending="open", open_s=5))
    async with asyncio.timeout(2):
        await last.wait()
    await asyncio.sleep(0.1)

    assert not bridge.socket_over.is_set()
    assert bridge.messages[-1]["event"] == "media"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_open_socket_ends_in_time(bridge: StrictBridge) -> None:
    report = await call(bridge, hangup_ms=100, ending="open", open_s=0.1)

    async with asyncio.timeout(2):
        await bridge.socket_over.wait()
    assert bridge.close_codes == [1006]
    assert bridge.stream_events() == ["stream-started", "stream-stopped"]
    assert report.ok


async def test_a_reset_ends_the_connection_without_a_close(bridge: StrictBridge) -> None:
    await call(bridge, hangup_ms=100, ending="reset")

    async with asyncio.timeout(2):
        await bridge.socket_over.wait()
    assert bridge.close_codes == [1006]
    assert "stop" not in {message["event"] for message in bridge.messages}


async def test_jitter_keeps_the_order(bridge: StrictBridge) -> None:
    report = await call(bridge, jitter_ms=200, speed=10)

    assert [int(media["timestamp"]) for media in bridge.media()] == list(range(20, 1020, 20))
    assert report.call_sid != (await call(bridge)).call_sid


async def test_connect_mode_sends_inbound_and_digits_only(bridge: StrictBridge) -> None:
    bridge.twiml = CONNECT

    report = await call(bridge, digits=(Digit(300, "5"), Digit(100, "#")))

    assert report.ok, report.problem
    assert bridge.media("outbound") == []
    dtmf = [message for message in bridge.messages if message["event"] == "dtmf"]
    assert [message["dtmf"] for message in dtmf] == [
        {"track": "inbound_track", "digit": "#"},
        {"track": "inbound_track", "digit": "5"},
    ]
    assert [int(message["sequenceNumber"]) for message in bridge.messages[1:]] == list(range(1, 55))


async def test_start_mode_has_no_digits(bridge: StrictBridge) -> None:
    await call(bridge, digits=(Digit(300, "5"),))

    assert "dtmf" not in {message["event"] for message in bridge.messages}


async def test_marks_come_back_in_connect_mode(bridge: StrictBridge) -> None:
    async def mark(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "start":
            await ws.send_json(
                {"event": "media", "streamSid": message["streamSid"], "media": {"payload": "/w=="}}
            )
            await ws.send_json(
                {"event": "mark", "streamSid": message["streamSid"], "mark": {"name": "greeted"}}
            )

    bridge.twiml, bridge.on_message = CONNECT, mark

    report = await call(bridge)

    assert [message["mark"] for message in bridge.messages if message["event"] == "mark"] == [
        {"name": "greeted"}
    ]
    assert report.ok


async def test_an_invalid_message_is_noted(bridge: StrictBridge) -> None:
    async def speak(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "start":
            await ws.send_str("hello")

    bridge.twiml, bridge.on_message = CONNECT, speak

    assert "31951" in (await call(bridge)).problem


async def test_speaking_on_a_stream_that_only_listens_is_an_error(bridge: StrictBridge) -> None:
    async def speak(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "start":
            await ws.send_str("hello")

    bridge.on_message = speak

    report = await call(bridge)

    assert "31924" in report.problem
    assert bridge.stream_events()[-1] == "stream-error"


async def test_after_a_close_in_connect_mode_the_redirect_is_followed_and_the_talk_went_on(
    bridge: StrictBridge,
) -> None:
    async def hang_up_once(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "media" and message["media"]["chunk"] == "10" and len(bridge.upgrades) == 1:
            await ws.close(code=1000)

    bridge.twiml, bridge.on_message = CONNECT, hang_up_once

    report = await call(bridge, speed=5.0)

    assert report.ok, report.problem
    assert [path for path, _ in bridge.forms if path != "/twilio/stream-status"] == [
        "/twilio/voice",
        "/twilio/resume",
    ]
    assert dict(bridge.forms)["/twilio/resume"]["CallStatus"] == "in-progress"
    first, second = report.streams
    assert first.closed_by_bridge
    assert first.close_code == 1000
    assert first.stream_sid != second.stream_sid
    resumed = [n for n, message in enumerate(bridge.messages) if message["event"] == "start"][1]
    media = bridge.messages[resumed + 1]["media"]
    assert (media["timestamp"], media["chunk"]) == ("20", "1")
    assert base64.b64decode(media["payload"])[0] >= 10


async def test_a_redirect_in_a_circle_ends(bridge: StrictBridge) -> None:
    bridge.twiml = "<Response><Redirect>/twilio/voice</Redirect></Response>"

    report = await call(bridge)

    assert "redirected 10 times" in report.problem
    assert len(bridge.forms) == 10


async def test_a_redirect_by_get_is_signed_with_its_query(bridge: StrictBridge) -> None:
    bridge.twiml = (
        '<Response><Redirect method="GET">https://bridge.example.com/twilio/resume?a=1</Redirect></Response>'
    )
    bridge.resume_twiml = START

    report = await call(bridge)

    assert report.ok, report.problem


async def test_the_call_flow_of_somebody_else_keeps_the_call_up_and_is_not_called(
    bridge: StrictBridge,
) -> None:
    bridge.twiml = START.replace(
        '<Pause length="3600"/>', "<Redirect>https://voice.example.net/existing</Redirect>"
    )

    report = await call(bridge)

    assert report.ok, report.problem
    assert len(bridge.media()) == 50


async def test_a_start_with_nothing_after_it_ends_the_call(bridge: StrictBridge) -> None:
    bridge.twiml = START.replace('<Pause length="3600"/>', "")

    report = await call(bridge)

    assert "the call flow ended at 0.0 s" in report.problem
    assert len(bridge.media()) <= 1


async def test_a_pause_that_is_too_short_ends_the_call(bridge: StrictBridge) -> None:
    bridge.twiml = START.replace("3600", "1")

    report = await call(bridge, {"inbound": sound(100)}, speed=10.0)

    assert "before the caller had finished" in report.problem
    assert 30 <= len(bridge.media()) <= 70
    assert bridge.messages[-1]["event"] == "stop"


@pytest.mark.parametrize(
    "twiml", ["<Response/>", "<Response><Say>Hello.</Say><Dial>+15550123</Dial></Response>"]
)
async def test_a_call_flow_without_a_stream_is_told(bridge: StrictBridge, twiml: str) -> None:
    bridge.twiml = twiml

    assert "without a stream" in (await call(bridge)).problem


async def test_a_wrong_token_is_refused(bridge: StrictBridge) -> None:
    stranger = Account(ACCOUNT.sid, "54321")

    report = await SimulatedCall(stranger, bridge.voice_url, AUDIO, public_url=PUBLIC).run()

    assert report.voice_status == 403
    assert "refused the call with 403" in report.problem
    assert not report.ok
    assert "54321" not in repr(stranger)


async def test_without_the_public_url_the_signature_does_not_fit(bridge: StrictBridge) -> None:
    assert (await SimulatedCall(ACCOUNT, bridge.voice_url, AUDIO).run()).voice_status == 403


async def test_without_a_public_url_the_target_is_what_is_signed(bridge: StrictBridge) -> None:
    bridge.public = bridge.url
    bridge.twiml = START.replace("https://bridge.example.com", bridge.url).replace(
        "wss://bridge.example.com", bridge.url.replace("http", "ws")
    )
    bridge.media_status = 401

    report = await SimulatedCall(ACCOUNT, bridge.voice_url, AUDIO, Script(speed=FAST)).run()

    assert report.voice_status == 200
    assert report.streams[0].url == bridge.url.replace("http", "ws") + "/twilio/media"
    assert report.streams[0].status == 401


@pytest.mark.parametrize("status", [401, 403, 404, 503])
async def test_a_refused_upgrade_is_31920(bridge: StrictBridge, status: int) -> None:
    bridge.media_status = status

    report = await call(bridge)

    assert report.streams[0].status == status
    assert "31920" in report.problem
    assert bridge.stream_events() == ["stream-error"]
    assert bridge.forms[-1][1]["StreamError"].startswith("31920")


async def test_a_refused_upgrade_in_connect_mode_goes_round_and_ends(bridge: StrictBridge) -> None:
    bridge.twiml, bridge.media_status = CONNECT, 503

    report = await call(bridge)

    assert len(report.streams) == 10
    assert "31920" in report.problem


async def test_a_socket_closed_with_1008_is_31921_and_the_call_goes_on(bridge: StrictBridge) -> None:
    async def refuse(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "start":
            await ws.close(code=1008, message=b"token")

    bridge.on_message = refuse
    begun = time.monotonic()

    report = await call(bridge, speed=5.0)

    assert time.monotonic() - begun >= 0.15
    assert report.streams[0].close_code == 1008
    assert "31921: the bridge closed the socket with 1008" in report.problem
    assert bridge.stream_events() == ["stream-started", "stream-error"]


async def test_a_proper_close_in_start_mode_is_a_problem_too(bridge: StrictBridge) -> None:
    async def finish(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "start":
            await ws.close(code=1000)

    bridge.on_message = finish

    report = await call(bridge)

    assert "before the call was over" in report.problem
    assert bridge.stream_events() == ["stream-started", "stream-stopped"]


async def test_a_dropped_connection_is_31903(bridge: StrictBridge) -> None:
    async def drop(ws: web.WebSocketResponse, message: dict[str, Any]) -> None:
        if message["event"] == "media":
            transport = ws.get_extra_info("socket")
            transport.shutdown(socket.SHUT_RDWR)

    bridge.on_message = drop

    report = await call(bridge, speed=5.0)

    assert "31903" in report.problem
    assert report.streams[0].closed_by_bridge


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"voice_status": 500}, "11200: .* answered 500"),
        ({"voice_status": 301}, "answered 301"),
        ({"twiml": "<Response>"}, "12100"),
        ({"twiml": "{}", "content_type": "application/json"}, "12300: .*application/json"),
    ],
)
async def test_a_document_that_twilio_would_not_take(
    bridge: StrictBridge, change: dict[str, object], sentence: str
) -> None:
    for name, value in change.items():
        setattr(bridge, name, value)

    report = await call(bridge)

    assert re.search(sentence, report.problem)
    assert not report.streams


async def test_nobody_answers() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

    report = await SimulatedCall(ACCOUNT, f"http://127.0.0.1:{port}/twilio/voice", AUDIO).run()

    assert report.voice_status is None
    assert report.problem.startswith(f"11200: no answer from http://127.0.0.1:{port}/twilio/voice")


@pytest.mark.parametrize("url", ["", "bridge", "ftp://bridge/voice", "http://[::1/voice", "http://h:99999/v"])
async def test_a_voice_url_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        SimulatedCall(ACCOUNT, url, AUDIO)


async def test_many_calls_at_once_keep_their_schedule(bridge: StrictBridge) -> None:
    script = [Script(seed=n) for n in range(10)]
    calls = [SimulatedCall(ACCOUNT, bridge.voice_url, AUDIO, one, public_url=PUBLIC) for one in script]

    reports = await asyncio.gather(*(one.run() for one in calls))

    assert all(report.ok for report in reports), [report.problem for report in reports]
    assert len({report.call_sid for report in reports}) == 10
    assert sum(report.frames_sent for report in reports) == 1000
    assert sorted(report.lateness.p50_ms for report in reports)[5] < 1000


async def test_the_report_as_json_holds_what_a_program_needs(bridge: StrictBridge) -> None:
    report = await call(bridge)

    told = report.as_json()

    assert told["ok"] is True
    assert told["duration_ms"] == 1000
    assert told["frames_sent"] == 100
    assert told["streams"] == [
        {
            "stream_sid": report.stream_sid,
            "url": "wss://bridge.example.com/twilio/media",
            "status": 101,
            "frames": 100,
            "closed_by": "twilio",
            "close_code": 1000,
            "error": None,
        }
    ]
    assert "media messages" in report.outcome


def test_a_load_is_void_that_was_late_more_than_now_and_then() -> None:
    punctual, late = Lateness.of([0.001] * 99 + [1.0]), Lateness.of([0.001] * 90 + [0.006] * 10)

    assert (punctual.void, late.void) == (False, True)
    assert late.as_json() == {"p50": 1.0, "p99": 6.0, "max": 6.0}
