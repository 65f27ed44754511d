import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.errors import BridgeError, ConfigError
from bridge.local.receiver import Answer, Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.script import Script
from bridge.serve import opened
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET, running, settings
from tests.doubles.numbered import NumberedWhisper, speech


class Process:
    """`whisper-bridge serve` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []

    async def line(self, event: str) -> dict[str, Any]:
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            while raw := await self.process.stderr.readline():
                self.lines.append(json.loads(raw))
                if self.lines[-1]["event"] == event:
                    return self.lines[-1]
        raise AssertionError(f"no line {event}: {self.lines}")

    async def exit(self, timeout: float = 10) -> int:
        assert self.process.stderr is not None
        async with asyncio.timeout(timeout):
            rest = await self.process.stderr.read()
            self.lines += [json.loads(line) for line in rest.splitlines()]
            return await self.process.wait()


@asynccontextmanager
async def serving(
    directory: Path, whisper_url: str, webhook_url: str, extra: str = ""
) -> AsyncIterator[Process]:
    config = directory / "bridge.toml"
    config.write_text(f"""
        [server]
        port = 0
        public_url = "{PUBLIC_URL}"
        {extra}
        [twilio]
        account_sid = "{ACCOUNT.sid}"
        auth_token = "{ACCOUNT.auth_token}"
        [whisper]
        url = "{whisper_url}"
        [webhook]
        url = "{webhook_url}"
        secret = "{SECRET}"
        allow_private_networks = ["127.0.0.0/8"]
        [outbox]
        url = "sqlite://{directory}/outbox"
    """)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "serve", "--config", str(config)), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # its pipe would warn in a later test


async def test_sigterm_while_idle_ends_the_process_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, "ws://127.0.0.1:9/websocket", "http://127.0.0.1:9/") as bridge:
        listening = await bridge.line("listening")
        url = f"http://127.0.0.1:{listening['port']}"
        assert listening["url"] == url
        async with aiohttp.ClientSession() as client:
            for path, status in (("/healthz", 200), ("/readyz", 200), ("/metrics", 200), ("/api/calls", 404)):
                async with client.get(url + path) as answer:
                    assert answer.status == status
                    text = await answer.text()
                    assert path != "/metrics" or "bridge_calls_live 0.0" in text
        bridge.process.send_signal(signal.SIGTERM)
        assert await bridge.exit(timeout=5) == 0
        assert bridge.lines[-1]["event"] == "stopped"


async def test_sigterm_lets_the_call_end_and_keeps_its_last_words(tmp_path: Path) -> None:
    async with (
        NumberedWhisper() as whisper,
        Receiver(SECRET) as receiver,
        serving(tmp_path, whisper.url, receiver.url) as bridge,
    ):
        port = (await bridge.line("listening"))["port"]
        voice = f"http://127.0.0.1:{port}/twilio/voice"
        call = SimulatedCall(ACCOUNT, voice, {"inbound": speech(range(8))}, Script(), public_url=PUBLIC_URL)
        running_call = asyncio.create_task(call.run())
        await receiver.wait_for_type("call.started")
        bridge.process.send_signal(signal.SIGTERM)
        await bridge.line("draining")
        assert (await running_call).ok
        assert await bridge.exit() == 0
        types = [r.type for r in receiver.received]
        assert (types[0], types[-1]) == ("call.started", "call.ended")
        finals = [r.data["text"] for r in receiver.received if r.type == "transcript.final"]
        assert " ".join(finals).split() == [f"w{n}" for n in range(8)]


async def test_the_deadline_ends_calls_that_go_on(tmp_path: Path) -> None:
    async with (
        NumberedWhisper() as whisper,
        Receiver(SECRET) as receiver,
        serving(tmp_path, whisper.url, receiver.url, "drain_deadline_s = 0.5") as bridge,
    ):
        port = (await bridge.line("listening"))["port"]
        voice = f"http://127.0.0.1:{port}/twilio/voice"
        call = SimulatedCall(ACCOUNT, voice, {"inbound": speech(range(40))}, Script(), public_url=PUBLIC_URL)
        running_call = asyncio.create_task(call.run())
        await receiver.wait_for_type("transcript.final")
        bridge.process.send_signal(signal.SIGTERM)
        ended = await receiver.wait_for_type("call.ended")
        assert ended.data["reason"] == "drained"
        assert ended.data["complete"]
        assert await bridge.exit() == 0
        running_call.cancel()
        await asyncio.gather(running_call, return_exceptions=True)


async def test_what_could_not_be_delivered_is_delivered_by_the_next_process(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, Receiver(SECRET) as receiver:
        receiver.default = Answer(503)
        async with serving(tmp_path, whisper.url, receiver.url) as bridge:
            port = (await bridge.line("listening"))["port"]
            voice = f"http://127.0.0.1:{port}/twilio/voice"
            call = SimulatedCall(
                ACCOUNT, voice, {"inbound": speech(range(4))}, Script(speed=1.4), public_url=PUBLIC_URL
            )
            await call.run()
            await bridge.line("call_ended")
            os.kill(bridge.process.pid, signal.SIGKILL)
            await bridge.process.wait()
        tried = {r.webhook_id: r.body for r in receiver.received}
        assert len(tried) == 1  # nothing after the first event is tried before that one is accepted
        receiver.received.clear()
        receiver.default = Answer()
        async with serving(tmp_path, whisper.url, receiver.url) as bridge:
            await receiver.wait_for_type("call.ended")
            bridge.process.send_signal(signal.SIGTERM)
            assert await bridge.exit() == 0
        assert [r.data["sequence"] for r in receiver.received] == [1, 2, 3]
        first = receiver.received[0]
        assert tried == {first.webhook_id: first.body}


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


def test_the_process_never_logs_what_was_said(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            NumberedWhisper() as whisper,
            Receiver(SECRET) as receiver,
            serving(tmp_path, whisper.url, receiver.url) as bridge,
        ):
            port = (await bridge.line("listening"))["port"]
            voice = f"http://127.0.0.1:{port}/twilio/voice"
            call = SimulatedCall(
                ACCOUNT, voice, {"inbound": speech(range(77, 81))}, Script(speed=1.4), public_url=PUBLIC_URL
            )
            await call.run()
            await receiver.wait_for_type("call.ended")
            bridge.process.send_signal(signal.SIGTERM)
            await bridge.exit()
            log = json.dumps(bridge.lines)
            assert "stream_started" in log
            for secret in ("w77", "+15550100", "+15550199", ACCOUNT.auth_token, SECRET):
                assert secret not in log

    asyncio.run(scenario())
    assert "w77" not in capfd.readouterr().out
