import asyncio
import time
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import aiohttp
import pytest

from bridge.call.memo import About, Memo
from bridge.twilio import gate as gate_module
from bridge.twilio import routes as module
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL
from tests.doubles.switchboard import CA, FORM, MZ, house, media, metric, post, start, token_of, upgrade


@pytest.mark.parametrize("path", ["/twilio/voice", "/twilio/resume", "/twilio/stream-status"])
async def test_every_post_needs_a_signature(tmp_path: Path, path: str) -> None:
    async with house(tmp_path) as (setup, client):
        before = metric("bridge_refusals_total", why="signature")
        async with client.post(setup.url + path, data=FORM) as answer:
            assert answer.status == 403
        assert (await post(setup, client, path, signature="wrong"))[0] == 403
        assert (await post(setup, client, path))[0] in {200, 204}
        assert metric("bridge_refusals_total", why="signature") == before + 2


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


async def test_a_call_whose_stream_is_over_is_streamed_again_some_times_at_most(tmp_path: Path) -> None:
    async with house(tmp_path, twilio={"mode": "connect"}) as (setup, client):
        _, text = await post(setup, client, "/twilio/resume?n=1")
        assert "<Stream" not in text  # nobody knows the call
        outbox = setup.bridge._services.outbox
        lease = await outbox.own_call(CA, "another", b"", node="b")
        await outbox.beat("b")
        _, text = await post(setup, client, "/twilio/resume")
        assert "<Stream" not in text  # a pause of ours ran out: another process has its stream
        for times in range(1, 6):
            _, text = await post(setup, client, f"/twilio/resume?n={times}")
            assert [verb.tag for verb in ET.fromstring(text)] == ["Connect", "Redirect"]
            assert ET.fromstring(text)[-1].text == f"{PUBLIC_URL}/twilio/resume?n={times + 1}"
        for odd in ("6", "-1", "x", "12"):
            _, text = await post(setup, client, f"/twilio/resume?n={odd}")
            assert "<Stream" not in text
        await outbox.publish(lease, [], {}, ended=True)
        _, text = await post(setup, client, "/twilio/resume?n=1")
        assert "<Stream" not in text


async def test_a_call_of_a_dead_process_is_taken_over_when_twilio_says_that_its_stream_is_gone(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as (setup, client):
        outbox = setup.bridge._services.outbox
        await outbox.own_call(CA, "another", b"{}", node="")
        form = FORM | {"StreamSid": MZ, "StreamEvent": "stream-error"}
        assert (await post(setup, client, "/twilio/stream-status", form))[0] == 204
        async with asyncio.timeout(5):
            while not (known := await outbox.known(CA)) or not known.ended:  # nothing is known of it
                await asyncio.sleep(0.01)


async def test_a_stream_that_comes_again_waits_until_the_call_is_let_go_and_loses_nothing(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, twilio={"mode": "connect"}) as (setup, client):
        outbox = setup.bridge._services.outbox
        memo = Memo(
            About(CA, ACCOUNT.sid, "+1", "+2", "inbound", {}),
            setup.receiver.url,
            "MZ0",
            ["inbound"],
            "connect",
        )
        lease = await outbox.own_call(
            CA, "another", replace(memo, began_at=time.time() - 60).encode(), node="b"
        )
        await outbox.beat("b")
        _, text = await post(setup, client, "/twilio/resume?n=1")
        parameter = ET.fromstring(text).find(".//Parameter")
        assert parameter is not None
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(parameter.attrib["value"]))
            for frame in range(50):
                await socket.send_str(media(MZ, frame * 20))
            async with asyncio.timeout(5):
                while not (await outbox.beat("b"))[CA]:
                    await asyncio.sleep(0.05)
            assert len(setup.bridge.calls) == 0
            await outbox.publish(lease, [], {"inbound": 59 * 8000})
            await outbox.let_go(lease)
            async with asyncio.timeout(5):
                while not len(setup.bridge.calls):
                    await asyncio.sleep(0.05)
            await socket.send_str('{"event":"stop"}')
        events = await setup.ended(CA)
    (gap,) = [e.data for e in events if e.type == "transcript.gap"]
    assert gap["start_ms"] == 59_000
    assert 59_900 < gap["end_ms"] < 62_000
    assert events[-1].data["duration_ms"] - gap["end_ms"] == 1000
