"""The whole house at work, as `whisper-bridge demo` starts it: real commands, real speech."""

import asyncio
import json
import os
import signal
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge.config import load
from bridge.errors import BridgeError
from bridge.local import demo, speech
from bridge.local.demo_screen import SilentScreen
from bridge.local.twilio import Account

pytest.importorskip("pocketsphinx")


def excerpt(path: Path, begin_ms: int, end_ms: int) -> Path:
    """A part of the committed call's caller."""
    with wave.open(str(speech.CALLER)) as source, wave.open(str(path), "wb") as target:
        source.setpos(begin_ms * 8)
        target.setparams(source.getparams())
        target.writeframes(source.readframes((end_ms - begin_ms) * 8))
    return path


async def start(*arguments: object) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "demo", "--engine", "pocketsphinx", *map(str, arguments),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_my_own_wav_becomes_verified_webhooks(tmp_path: Path) -> None:
    line = next(line for line in speech.script() if line.speaker == "caller")
    audio = excerpt(tmp_path / "my.wav", line.start_ms - 400, line.end_ms + 200)

    async with asyncio.timeout(60):
        process = await start(audio, "--json")
        out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    assert err == b""
    told = json.loads(out)
    assert all(set(one) == {"id", "verified", "event"} and one["verified"] for one in told)
    events = [one["event"] for one in told]
    assert (events[0]["type"], events[-1]["type"]) == ("call.started", "call.ended")
    assert {"transcript.partial", "transcript.final"} <= {event["type"] for event in events}
    assert all(not event["data"].get("suspect") for event in events)
    assert events[0]["data"]["parameters"] == {}
    assert "david" in events[-1]["data"]["transcript"][0]["text"].lower()


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [int(child) for child in children.read_text().split()] if children.exists() else []
    return found + [grandchild for child in found for grandchild in descendants(child)]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
@pytest.mark.parametrize(
    ("number", "code", "moment", "running"),
    [(signal.SIGINT, 130, b"call.started", 2), (signal.SIGTERM, 143, b"is being loaded", 0)],
)
async def test_a_signal_ends_it_and_every_child(
    number: signal.Signals, code: int, moment: bytes, running: int
) -> None:
    async with asyncio.timeout(60):
        process = await start()
        assert process.stdout is not None
        while moment not in await process.stdout.readline():
            continue
        children = descendants(process.pid)
        process.send_signal(number)
        _, err = await process.communicate()

    assert process.returncode == code
    assert err == b""
    assert len(children) >= running
    assert not alive(children)


def alive(pids: Sequence[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


async def test_an_engine_that_cannot_be_used_is_the_childs_own_sentence() -> None:
    play = demo.Play({"inbound": b"\xff" * 160}, {}, "nothing")

    with pytest.raises(BridgeError, match="pocketsphinx brings its own model"):
        await demo.run(play, "pocketsphinx", "small.en", SilentScreen())


def test_its_configuration_is_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("BRIDGE_", "TWILIO_", "BASETEN_"))]:
        monkeypatch.delenv(name)
    path = tmp_path / "bridge.toml"
    secret = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    path.write_text(
        demo._config(
            Account("AC" + "2" * 32, "t"),
            secret,
            "http://127.0.0.1:1/",
            "ws://127.0.0.1:2/websocket",
            tmp_path,
        )
    )

    config = load(path)

    config.require_serving()
    assert config.outbox.directory == tmp_path / "outbox"
    assert config.whisper.partials
    assert "transcript.partial" in config.webhook.events
