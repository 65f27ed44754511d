import asyncio
import json
import os
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from bridge.cli import simulate
from bridge.errors import BridgeError, ConfigError, UsageError
from tests.chaos.port import free_port
from tests.doubles.strict_bridge import PUBLIC, TOKEN, StrictBridge


@pytest.fixture
async def bridge() -> AsyncIterator[StrictBridge]:
    async with StrictBridge.open() as bridge:
        yield bridge


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    samples = struct.pack("<8000h", *([1000, -1000] * 4000))
    header = struct.pack(
        "<4sI4s4sIHHIIHH4sI", b"RIFF", 0, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 16000
    )
    path = tmp_path / "call.wav"
    path.write_bytes(header + samples)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "bridge.toml"
    path.write_text(
        f'[server]\npublic_url = "{PUBLIC}"\n[twilio]\naccount_sid = "AC{"2" * 32}"\nauth_token = "{TOKEN}"\n'
        '[[numbers]]\nnumber = "+15551234567"\n'
    )
    return path


async def command(*arguments: object) -> Result:
    app = typer.Typer()
    simulate.register(app)
    return await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments])


async def test_calls_are_played_with_the_configured_account(
    bridge: StrictBridge, audio: Path, config: Path
) -> None:
    told = await command(
        bridge.voice_url, audio, "--config", config, "--speed", 20, "--calls", 3, "--stagger-ms", 5
    )

    assert told.exit_code == 0, told.output
    assert told.output.count("50 media messages") + told.output.count("100 media messages") == 3
    assert "3 of 3 calls went through." in told.output
    assert "Media was late by" in told.output
    voice = [form for path, form in bridge.forms if path == "/twilio/voice"]
    assert {form["To"] for form in voice} == {"+15551234567"}
    assert len({form["CallSid"] for form in voice}) == 3


async def test_the_report_for_programs(bridge: StrictBridge, audio: Path, config: Path) -> None:
    told = await command(
        bridge.voice_url, audio, "--config", config, "--speed", 20, "--report", "json",
        "--hole", "200:400", "--burst", "700:100", "--hangup-ms", 900, "--jitter-ms", 5, "--from", "anonymous",
        "--to", "+15550001",
    )  # fmt: skip

    report = json.loads(told.stdout)
    assert (report["ok"], report["failed"]) == (1, 0)
    assert report["void"] is (report["lateness_ms"]["p99"] > 5)
    assert report["calls"][0]["duration_ms"] == 900
    assert [int(media["timestamp"]) for media in bridge.media()] == [
        *range(20, 220, 20),
        *range(620, 920, 20),
    ]
    _, form = bridge.forms[0]
    assert (form["From"], form["To"]) == ("anonymous", "+15550001")


async def test_what_a_process_uses_is_told(bridge: StrictBridge, audio: Path, config: Path) -> None:
    arguments = (bridge.voice_url, audio, "--config", config, "--speed", 20, "--pid", os.getpid())

    told = await command(*arguments, "--report", "json")

    figures = json.loads(told.stdout)
    assert figures["bridge"]["processes"] == 1
    assert figures["bridge"]["cpu_ms_per_call_minute"] > 0
    assert "ms of processor for a minute of a call" in (await command(*arguments)).output


async def test_a_process_that_is_not_there_is_wrong_usage(
    bridge: StrictBridge, audio: Path, config: Path
) -> None:
    told = await command(bridge.voice_url, audio, "--config", config, "--pid", 4194305)

    assert isinstance(told.exception, UsageError)
    assert str(told.exception).startswith("nothing can be told of process 4194305")
    assert bridge.forms == []


async def test_both_ends_must_be_here_to_be_looked_at(audio: Path, config: Path) -> None:
    told = await command("http://127.0.0.1:9/", audio, "--config", config, "--local")

    assert isinstance(told.exception, UsageError)
    assert str(told.exception).startswith("--local needs a configuration whose ends are on this machine")


async def test_a_call_that_nobody_took_is_not_waited_for(audio: Path, tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text(
        f'[server]\npublic_url = "{PUBLIC}"\n[twilio]\naccount_sid = "AC{"2" * 32}"\nauth_token = "{TOKEN}"\n'
        f'[whisper]\nurl = "ws://127.0.0.1:{free_port()}/"\n'
        f'[webhook]\nurl = "http://127.0.0.1:{free_port()}/"\nallow_private_networks = ["127.0.0.0/8"]\n'
    )

    told = await command("http://127.0.0.1:9/", audio, "--config", tmp_path / "bridge.toml", "--local")

    assert "11200: no answer from http://127.0.0.1:9/" in str(told.exception)


async def test_a_refused_call_is_one_sentence_and_exit_1(
    bridge: StrictBridge, audio: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_TWILIO__AUTH_TOKEN", "another")

    told = await command(bridge.voice_url, audio, "--config", config, "--calls", 2)

    assert isinstance(told.exception, BridgeError)
    assert told.exception.exit_code == 1
    assert str(told.exception).startswith(
        "2 of 2 calls failed, the first one: the bridge refused the call with 403"
    )
    assert "another" not in str(told.exception)


async def test_nobody_there(audio: Path, config: Path) -> None:
    told = await command("http://127.0.0.1:9/twilio/voice", audio, "--config", config)

    assert str(told.exception) == "11200: no answer from http://127.0.0.1:9/twilio/voice: Connection refused."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--hole", "5"], "--hole '5' cannot be used"),
        (["--burst", "5:x"], "--burst '5:x' cannot be used"),
        (["--hole", "5:0"], "expected AT:MS"),
        (["--hole", "1:" + "9" * 5000], "expected AT:MS"),
    ],
)
async def test_wrong_usage(audio: Path, config: Path, arguments: list[str], sentence: str) -> None:
    told = await command("http://127.0.0.1:9/", audio, "--config", config, *arguments)

    assert isinstance(told.exception, UsageError)
    assert sentence in str(told.exception)


async def test_without_a_token_nothing_can_be_signed(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    (tmp_path / "empty.toml").write_text("[server]\nport = 0\n")

    told = await command("http://127.0.0.1:9/", audio, "--config", tmp_path / "empty.toml")

    assert "simulate needs twilio.auth_token" in str(told.exception)
    told = await command("http://127.0.0.1:9/", audio, "--config", tmp_path / "none.toml")
    assert isinstance(told.exception, ConfigError)
