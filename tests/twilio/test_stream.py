import asyncio
import itertools
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest
import yarl

from bridge.local.twilio.script import Digit, Script
from bridge.outbox.outbox import OutboxDown
from bridge.twilio import sources
from bridge.twilio import stream as module
from bridge.twilio.load import MOST, PRIOR
from bridge.twilio.sources import UNSIGNED
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, running
from tests.doubles.numbered import NumberedWhisper, speech
from tests.doubles.switchboard import (
    CA,
    FORM,
    MZ,
    house,
    media,
    metric,
    post,
    start,
    token_of,
    until,
    upgrade,
)
from tests.doubles.tls_proxy import TlsProxy, trusting

SIGNED = {"X-Twilio-Signature": ACCOUNT.signature(PUBLIC_URL.replace("https", "wss") + "/twilio/media")}


@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "wrong"}, {"X-Twilio-Signature": "x" * 5000}])
async def test_the_upgrade_is_refused_before_it_happens(tmp_path: Path, headers: dict[str, str]) -> None:
    async with house(tmp_path) as (setup, client):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(setup.url + "/twilio/media", headers=headers)
        assert refused.value.status == 403


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


async def replayed(client: aiohttp.ClientSession, ports: list[int], token: str, tries: int) -> int:
    """Start so many streams with one token at once, on bridges in turn; how many were refused. One is let in."""
    sockets = [await client.ws_connect(f"http://127.0.0.1:{port}/twilio/media", headers=SIGNED)
               for port in itertools.islice(itertools.cycle(ports), tries)]  # fmt: skip
    await asyncio.gather(*(socket.send_str(start(token)) for socket in sockets))
    waiting = {asyncio.create_task(socket.receive()): number for number, socket in enumerate(sockets)}
    refused, pending = 0, set(waiting)
    while len(pending) > 1:
        done, pending = await asyncio.wait(pending, timeout=10, return_when=asyncio.FIRST_COMPLETED)
        assert done, f"{len(pending)} were let in"
        refused += sum(each.result().data == 1008 for each in done)
    (admitted,) = pending
    await sockets[waiting[admitted]].send_str('{"event":"stop"}')
    assert (await admitted).data == 1000
    for socket in sockets:
        await socket.close()
    return refused


async def test_a_token_admits_one_stream_however_many_try(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        token = await token_of(setup, client)
        before = metric("bridge_refusals_total", why="token_used")
        assert await replayed(client, [setup.bridge.port], token, 50) == 49
        assert metric("bridge_refusals_total", why="token_used") == before + 49
        await setup.ended(CA)
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(token))
            assert (await socket.receive(timeout=5)).data == 1008
        assert [each.type for each in setup.receiver.received] == ["call.started", "call.ended"]


async def test_a_token_admits_one_stream_of_two_bridges_that_share_a_database(
    tmp_path: Path, postgres_url: str
) -> None:
    shared: dict[str, Any] = {"outbox": {"url": postgres_url}}
    async with (
        house(tmp_path, **shared, journal={"path": str(tmp_path / "one")}) as (one, client),
        running(tmp_path, "ws://127.0.0.1:9/", **shared, journal={"path": str(tmp_path / "two")}) as two,
    ):
        token = await token_of(one, client)
        assert await replayed(client, [one.bridge.port, two.bridge.port], token, 50) == 49


async def test_a_start_that_cannot_be_read_does_not_use_its_token_up(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        token = await token_of(setup, client)
        for changes in (
            {"callSid": "CA../x"},
            {"mediaFormat": "mulaw"},
            {"customParameters": {"p": "x" * 9000}},
        ):
            async with upgrade(setup, client) as socket:
                await socket.send_str(start(token, **changes))
                assert (await socket.receive(timeout=5)).data == 1008
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(token))
            await socket.send_str('{"event":"stop"}')
        await setup.ended(CA)


async def test_a_socket_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.twilio.feed.START_S", 0.1)
    async with house(tmp_path) as (setup, client), upgrade(setup, client) as socket:
        await socket.send_str('{"event":"connected"}')
        closed = await socket.receive(timeout=5)
        assert closed.data == 1008


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


async def test_a_stream_that_is_let_in_too_late_does_not_take_the_call_from_a_newer_one(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as (setup, client):
        streams = setup.bridge.twilio.streams
        inherit, may = streams._inherit, asyncio.Event()

        async def slow(*about: Any, again: bool) -> bool:
            streams._inherit = inherit
            await may.wait()
            return await inherit(*about, again=again)

        streams._inherit = slow  # type: ignore[assignment]  # as an heir whose call another process has still
        tokens = [await token_of(setup, client) for _ in range(2)]
        async with upgrade(setup, client) as old, upgrade(setup, client) as new:
            await old.send_str(start(tokens[0]))
            await until(lambda: streams._inherit is inherit)
            await new.send_str(start(tokens[1], "MZ" + "2" * 32))
            await until(lambda: setup.bridge.calls.get(CA) is not None)
            may.set()
            refused = await old.receive(5)
            assert (refused.type, refused.data) == (aiohttp.WSMsgType.CLOSE, 1008)
            call = setup.bridge.calls.get(CA)
            assert call is not None
            assert call.memo.stream_sid == "MZ" + "2" * 32
            assert not call.waiting


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


async def test_a_burst_of_calls_gets_as_many_streams_as_there_is_room_for(tmp_path: Path) -> None:
    async with house(tmp_path, server={"max_calls": 5}) as (setup, client):
        before = metric("bridge_calls_not_streamed_total", why="full_calls")
        forms = [FORM | {"CallSid": f"CA{number:032}"} for number in range(50)]
        answers = await asyncio.gather(*(post(setup, client, "/twilio/voice", form) for form in forms))
        assert {status for status, _ in answers} == {200}, "every call flow goes on"
        streamed = [
            form
            for form, (_, text) in zip(forms, answers, strict=True)
            if ET.fromstring(text)[0].tag == "Start"
        ]
        assert len(streamed) == 5
        assert metric("bridge_calls_not_streamed_total", why="full_calls") == before + 45
        async with client.get(setup.url + "/readyz") as answer:
            assert (answer.status, await answer.json()) == (503, {"status": "full"})
        tokens = [await token_of(setup, client, form) for form in streamed]  # Twilio asks once more
        sockets = [await upgrade(setup, client) for _ in range(5)]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await upgrade(setup, client)
        assert refused.value.status == 503
        assert refused.value.headers is not None
        assert refused.value.headers["Retry-After"]
        for socket, form, token in zip(sockets, streamed, tokens, strict=True):
            await socket.send_str(start(token, callSid=form["CallSid"]))
        await until(lambda: len(setup.bridge.calls) == 5)
        _, text = await post(setup, client, "/twilio/voice", FORM)
        assert ET.fromstring(text)[0].tag == "Pause"
        await sockets[0].send_str('{"event":"stop"}')
        await setup.ended(streamed[0]["CallSid"])
        await until(lambda: len(setup.bridge.calls) == 4)
        async with client.get(setup.url + "/readyz") as answer:
            assert answer.status == 200
        _, text = await post(setup, client, "/twilio/voice", FORM)
        assert ET.fromstring(text)[0].tag == "Start"
        for socket in sockets[1:]:
            await socket.send_str('{"event":"stop"}')
            await socket.close()


async def test_each_endpoint_takes_so_many_sockets(tmp_path: Path) -> None:
    numbers = [{"number": "+15550198", "whisper_url": "ws://127.0.0.1:9/websocket"}]
    sections: dict[str, Any] = {"numbers": numbers, "whisper": {"max_connections": 4}}
    async with house(tmp_path, **sections) as (setup, client):
        before = metric("bridge_calls_not_streamed_total", why="full_whisper")
        tags = []
        for number in range(3):
            form = FORM | {"CallSid": f"CA{number:032}"}
            _, text = await post(setup, client, "/twilio/voice", form)
            tags.append(ET.fromstring(text)[0].tag)
        assert tags == ["Start", "Start", "Pause"]
        assert metric("bridge_calls_not_streamed_total", why="full_whisper") == before + 1
        _, text = await post(setup, client, "/twilio/voice", FORM | {"To": "+15550198"})
        assert ET.fromstring(text)[0].tag == "Start"


async def test_upgrades_that_twilio_did_not_sign_are_told_to_wait_and_those_it_did_are_not(
    tmp_path: Path,
) -> None:
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    async with house(tmp_path, server=server) as (setup, client):

        async def status(address: str) -> int:
            headers = {"X-Twilio-Signature": "wrong", "X-Forwarded-For": f"1.2.3.4, {address}"}
            try:
                await client.ws_connect(setup.url + "/twilio/media", headers=headers)
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status
            raise AssertionError("it was let in")

        answers: list[int] = []
        for _ in range(3):  # one of which lies within a second
            answers += [await status("203.0.113.9") for _ in range(UNSIGNED + 5)]
        assert set(answers) == {403, 429}
        assert await status("203.0.113.10") == 403
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            await socket.send_str('{"event":"stop"}')
        await setup.ended(CA)


async def test_sockets_that_say_nothing_are_bounded_but_not_for_calls_that_are_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PENDING_EACH", 2)
    monkeypatch.setattr(sources, "PENDING", 3)
    async with house(tmp_path, server={"trusted_proxies": ["127.0.0.0/8"]}) as (setup, client):

        async def ask(address: str) -> int:
            headers = SIGNED | {"X-Forwarded-For": address}
            try:
                open_sockets.append(await client.ws_connect(setup.url + "/twilio/media", headers=headers))
            except aiohttp.WSServerHandshakeError as refused:
                return refused.status
            return 101

        open_sockets: list[aiohttp.ClientWebSocketResponse] = []
        assert [await ask("203.0.113.1") for _ in range(3)] == [101, 101, 429]
        assert [await ask("203.0.113.2") for _ in range(2)] == [101, 503]
        tokens = [await token_of(setup, client, FORM | {"CallSid": f"CA{number:032}"}) for number in range(5)]
        assert [await ask("203.0.113.1") for _ in range(2)] == [101, 101], (
            "two more are expected than have come"
        )
        assert await ask("203.0.113.1") == 101, "one that is silent gives way"
        assert (await open_sockets.pop(0).receive(timeout=5)).data == 1008
        await open_sockets[0].send_str(start(tokens[0], callSid=f"CA{0:032}"))
        await setup.receiver.wait_for(lambda r: r.type == "call.started")
        for socket in open_sockets:
            await socket.close()
        await until(lambda: setup.bridge.twilio.streams._sources.pending == 0)


async def test_behind_a_proxy_that_ends_tls_and_strips_a_prefix(tmp_path: Path) -> None:
    async with (
        TlsProxy("/team/bridge") as proxy,
        house(tmp_path, server={"public_url": proxy.url}) as (setup, _),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting())) as twilio,
    ):
        proxy.upstream = setup.url

        async def ask(url: str) -> tuple[int, str]:
            signed = {"X-Twilio-Signature": ACCOUNT.signature(url, FORM)}
            async with twilio.post(yarl.URL(url, encoded=True), data=FORM, headers=signed) as answer:
                return answer.status, await answer.text()

        status, text = await ask(f"{proxy.url}/twilio/voice?x=%2F&y=a%20b")
        assert status == 200
        asked = ET.fromstring(text).find(".//Stream")
        assert asked is not None
        assert asked.attrib["url"] == proxy.url.replace("https", "wss") + "/twilio/media"
        token = asked[0].attrib["value"]
        signed = {"X-Twilio-Signature": ACCOUNT.signature(asked.attrib["url"])}
        async with twilio.ws_connect(asked.attrib["url"], headers=signed) as socket:
            await socket.send_str(start(token))
            await socket.send_str(media(MZ, 20))
            await socket.send_str('{"event":"stop"}')
        assert (await setup.ended(CA))[-1].data["duration_ms"] == 20
        status, _ = await ask(asked.attrib["statusCallback"])
        assert status == 204
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await twilio.ws_connect(asked.attrib["url"], headers={"X-Twilio-Signature": "x"})


async def test_behind_a_proxy_whose_prefix_public_url_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with (
        TlsProxy("/team/bridge") as proxy,
        house(tmp_path, server={"public_url": proxy.url.removesuffix("/team/bridge")}) as (setup, _),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusting())) as twilio,
    ):
        proxy.upstream = setup.url
        url = f"{proxy.url}/twilio/voice"
        signed = {"X-Twilio-Signature": ACCOUNT.signature(url, FORM)}
        async with twilio.post(url, data=FORM, headers=signed) as answer:
            assert answer.status == 403
        line = capsys.readouterr().out
        assert "server.public_url lacks the path prefix that a proxy strips: /team/bridge" in line
        assert url.replace("/team/bridge", "") in line


async def test_a_burst_at_a_process_that_knows_nothing_yet_is_not_let_in_whole(tmp_path: Path) -> None:
    async with house(tmp_path, server={"max_calls": 0}) as (setup, client):
        forms = [FORM | {"CallSid": f"CA{number:032}"} for number in range(200)]
        answers = await asyncio.gather(*(post(setup, client, "/twilio/voice", form) for form in forms))
        streamed = sum(ET.fromstring(text)[0].tag == "Start" for _, text in answers)
        assert 0 < streamed <= int(MOST / PRIOR)


async def test_capacity_and_silent_streams_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAMPLE_S", 0.01)
    monkeypatch.setattr(module, "SILENT_S", 0.1)
    async with house(tmp_path, server={"max_calls": 7}) as (setup, client), upgrade(setup, client) as socket:
        await until(lambda: metric("bridge_capacity_calls") == 7)
        await socket.send_str(start(await token_of(setup, client)))
        await until(lambda: metric("bridge_streams_silent") == 1)
        await socket.send_str(media(MZ, 20))
        await until(lambda: metric("bridge_streams_silent") == 0)
        await socket.send_str('{"event":"stop"}')
        await setup.ended(CA)


async def test_a_live_call_that_is_brought_back_finds_the_door_open_however_full_it_is(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, server={"max_calls": 1}) as (setup, client):
        async with upgrade(setup, client) as first:
            await first.send_str(start(await token_of(setup, client)))
            await until(lambda: len(setup.bridge.calls) == 1)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await upgrade(setup, client)
            token = setup.bridge.twilio._gate.issue(FORM, time.time(), again=True)
            async with upgrade(setup, client) as second:
                await second.send_str(start(token, stream="MZ" + "2" * 32))
                assert (await first.receive(timeout=5)).data == 1000
                await second.send_str('{"event":"stop"}')
        assert (await setup.ended(CA))[-1].data["reason"] == "hangup"
