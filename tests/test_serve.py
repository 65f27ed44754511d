import asyncio
import json
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.errors import BridgeError, ConfigError
from bridge.local.receiver import Answer, Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.script import Script
from bridge.outbox.outbox import Selection
from bridge.serve import opened, raise_open_files
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET, running, settings
from tests.doubles.numbered import NumberedWhisper, speech
from tests.doubles.process import Around, serving


async def test_sigterm_while_idle_ends_the_process_at_once(tmp_path: Path) -> None:
    async with serving(Around(tmp_path, "ws://127.0.0.1:9/websocket", "http://127.0.0.1:9/")) as bridge:
        listening = await bridge.line("listening")
        url = f"http://127.0.0.1:{listening['port']}"
        assert listening["url"] == url
        async with aiohttp.ClientSession() as client:
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/api/calls", 404)):
                async with client.get(url + path) as answer:
                    assert answer.status == status
                    text = await answer.text()
                    assert path != "/metrics" or "bridge_calls_live 0.0" in text
        bridge.send(signal.SIGTERM)
        assert await bridge.exit(timeout=5) == 0
        assert bridge.lines[-1]["event"] == "stopped"


async def test_sigterm_lets_the_call_end_and_keeps_its_last_words(tmp_path: Path) -> None:
    async with (
        NumberedWhisper() as whisper,
        Receiver(SECRET) as receiver,
        serving(Around(tmp_path, whisper.url, receiver.url)) as bridge,
    ):
        port = await bridge.port()
        voice = f"http://127.0.0.1:{port}/twilio/voice"
        call = SimulatedCall(ACCOUNT, voice, {"inbound": speech(range(8))}, Script(), public_url=PUBLIC_URL)
        running_call = asyncio.create_task(call.run())
        await receiver.wait_for_type("call.started")
        bridge.send(signal.SIGTERM)
        await bridge.line("draining")
        assert (await running_call).ok
        assert await bridge.exit() == 0
        types = [r.type for r in receiver.received]
        assert (types[0], types[-1]) == ("call.started", "call.ended")
        finals = [r.data["text"] for r in receiver.received if r.type == "transcript.final"]
        assert " ".join(finals).split() == [f"w{n}" for n in range(8)]


async def test_at_the_deadline_calls_that_go_on_are_left_to_the_next_process(tmp_path: Path) -> None:
    async with (
        NumberedWhisper() as whisper,
        Receiver(SECRET) as receiver,
        serving(Around(tmp_path, whisper.url, receiver.url, server="drain_deadline_s = 0.5")) as bridge,
    ):
        port = await bridge.port()
        voice = f"http://127.0.0.1:{port}/twilio/voice"
        call = SimulatedCall(ACCOUNT, voice, {"inbound": speech(range(40))}, Script(), public_url=PUBLIC_URL)
        running_call = asyncio.create_task(call.run())
        await receiver.wait_for_type("transcript.final")
        bridge.send(signal.SIGTERM)
        assert await bridge.exit() == 0
        (gone,) = [line for line in bridge.lines if line["event"] == "call_let_go"]
        assert gone["complete"]
        assert "call.ended" not in {r.type for r in receiver.received}
        running_call.cancel()
        await asyncio.gather(running_call, return_exceptions=True)


async def test_what_could_not_be_delivered_is_delivered_by_the_next_process(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, Receiver(SECRET) as receiver:
        receiver.default = Answer(503)
        async with serving(Around(tmp_path, whisper.url, receiver.url)) as bridge:
            port = await bridge.port()
            voice = f"http://127.0.0.1:{port}/twilio/voice"
            call = SimulatedCall(
                ACCOUNT, voice, {"inbound": speech(range(4))}, Script(speed=1.4), public_url=PUBLIC_URL
            )
            await call.run()
            await bridge.line("call_ended")
            await bridge.kill()
        tried = {r.webhook_id: r.body for r in receiver.received}
        assert len(tried) == 1  # nothing after the first event is tried before that one is accepted
        receiver.received.clear()
        receiver.default = Answer()
        async with serving(Around(tmp_path, whisper.url, receiver.url)) as bridge:
            await receiver.wait_for_type("call.ended")
            bridge.send(signal.SIGTERM)
            assert await bridge.exit() == 0
        assert [r.data["sequence"] for r in receiver.received] == [1, 2, 3]
        first = receiver.received[0]
        assert tried == {first.webhook_id: first.body}


async def test_what_a_killed_process_left_is_listed_and_replayed_through_the_next(tmp_path: Path) -> None:
    def deliveries(*arguments: str) -> Any:
        command = (sys.executable, "-m", "bridge", "deliveries", *arguments)
        config = ("--config", str(tmp_path / "bridge.toml"), "--url", url)
        return subprocess.run(
            [*command, *config], capture_output=True, text=True, timeout=20, check=True
        ).stdout

    token = 'admin_token = "an-admin-token"'
    async with NumberedWhisper() as whisper, Receiver(SECRET) as receiver:
        receiver.default = Answer(503, retry_after="3600")
        async with serving(Around(tmp_path, whisper.url, receiver.url, server=token)) as bridge:
            url = (await bridge.line("listening"))["url"]
            call = SimulatedCall(
                ACCOUNT, f"{url}/twilio/voice", {"inbound": speech(range(4))}, Script(speed=1.4), public_url=PUBLIC_URL
            )  # fmt: skip
            report = await call.run()
            await bridge.line("call_ended")
            await bridge.kill()
        async with serving(Around(tmp_path, whisper.url, receiver.url, server=token)) as bridge:
            url = (await bridge.line("listening"))["url"]
            waiting = json.loads(await asyncio.to_thread(deliveries, "list", "--json"))
            assert {(one["call_sid"], one["state"]) for one in waiting} == {(report.call_sid, "pending")}
            receiver.default = Answer()
            told = await asyncio.to_thread(deliveries, "replay", "--call", report.call_sid)
            assert told == f"Replayed: {len(waiting)}.\n"
            await receiver.wait_for_type("call.ended", timeout=20)
            bridge.send(signal.SIGTERM)
            assert await bridge.exit() == 0
        accepted = [r.webhook_id for r in receiver.received if r.accepted]
        assert accepted == [one["event_id"] for one in reversed(waiting)]


async def test_bodies_are_kept_no_longer_than_is_said(tmp_path: Path) -> None:
    async with (
        NumberedWhisper() as whisper,
        running(tmp_path, whisper.url, outbox={"keep_bodies_h": 0}) as setup,
    ):
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        await setup.ended(report.call_sid)
        outbox = setup.bridge._services.outbox
        async with asyncio.timeout(10):
            while any(record.kept for record in await outbox.records(Selection(), 10)):
                await asyncio.sleep(0.02)
        assert len(await outbox.records(Selection(call_sid=report.call_sid), 10)) == 3


async def test_a_backlog_that_takes_long_to_count_makes_nothing_unready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("bridge.serve.READY_S", 0.1)
    async with running(tmp_path, "ws://127.0.0.1:9/websocket") as setup, aiohttp.ClientSession() as client:
        monkeypatch.setattr(setup.bridge._services.outbox, "stats", endless)
        for path in ("/metrics", "/readyz"):
            async with client.get(setup.url + path) as answer:
                assert answer.status == 200
        monkeypatch.setattr("bridge.serve.FLUSH_S", 60)
        async with asyncio.timeout(5):
            await setup.bridge.drain(asyncio.Event())


async def test_what_is_wrong_is_one_sentence_and_the_right_exit_code(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    for text, code, words in (
        ("[server]\nprot = 1\n", 2, "server.prot"),
        ("[twilio]\nverify_signatures = false\n", 2, "webhook.url"),
    ):
        config.write_text(text)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "serve", "--config", str(config)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await process.communicate()
        assert process.returncode == code
        assert words in error.decode()
        assert "Traceback" not in error.decode()


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = settings(
            tmp_path, "ws://127.0.0.1:9/websocket", "http://127.0.0.1:9/", server={"port": port}
        )
        with pytest.raises(BridgeError, match=f"cannot listen on 127.0.0.1 port {port}"):
            async with opened(config):
                pass


async def test_two_bridges_do_not_share_an_outbox(tmp_path: Path) -> None:
    async with running(tmp_path, "ws://127.0.0.1:9/websocket"):
        config = settings(tmp_path, "ws://127.0.0.1:9/websocket", "http://127.0.0.1:9/")
        with pytest.raises(BridgeError, match="outbox"):
            async with opened(config):
                pass


async def test_a_configuration_that_cannot_serve_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/websocket", "", twilio={"auth_token": ""})
    with pytest.raises(ConfigError, match=r"twilio\.auth_token"):
        async with opened(config):
            pass


async def test_a_dead_webhook_of_one_number_does_not_slow_another(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, Receiver(SECRET) as dead:
        dead.default = Answer(manner="hang")
        numbers = [{"number": "+15550177", "webhook_url": dead.url}]
        async with running(tmp_path, whisper.url, numbers=numbers) as setup:
            audio = {"inbound": speech(range(4))}
            stuck = setup.call(audio, Script(speed=4), called="+15550177")
            well = setup.call(audio, Script(speed=4), called="+15550188")
            reports = await asyncio.gather(stuck.run(), well.run())
            events = await setup.ended(reports[1].call_sid, timeout=3)
            assert [e.type for e in events] == ["call.started", "transcript.final", "call.ended"]
            assert {r.call_sid for r in dead.received} == {reports[0].call_sid}


def test_the_process_may_open_as_many_files_as_the_system_allows() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        raise_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_process_never_logs_what_was_said(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            NumberedWhisper() as whisper,
            Receiver(SECRET) as receiver,
            serving(Around(tmp_path, whisper.url, receiver.url)) as bridge,
        ):
            port = await bridge.port()
            voice = f"http://127.0.0.1:{port}/twilio/voice"
            call = SimulatedCall(
                ACCOUNT, voice, {"inbound": speech(range(77, 81))}, Script(speed=1.4), public_url=PUBLIC_URL
            )
            await call.run()
            await receiver.wait_for_type("call.ended")
            bridge.send(signal.SIGTERM)
            await bridge.exit()
            log = json.dumps(bridge.lines)
            assert "stream_started" in log
            for secret in ("w77", "+15550100", "+15550199", ACCOUNT.auth_token, SECRET):
                assert secret not in log

    asyncio.run(scenario())
    assert "w77" not in capfd.readouterr().out
