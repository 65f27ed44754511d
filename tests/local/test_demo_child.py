import asyncio
import sys
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from bridge.local.demo_child import Child


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `python` that is a shell script: the child's behaviour is what a test writes into it."""
    script = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(script))
    return script


def write(script: Path, *lines: str) -> None:
    script.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    script.chmod(0o755)


LISTENING = """echo '{"event": "listening", "port": 4711}' >&2"""


async def test_it_listens_and_ends_on_request(commands: Path) -> None:
    write(commands, "echo noise >&2", "echo '[1]' >&2", LISTENING, "exec sleep 30")
    child = Child("serve", "--config", "x")

    assert (await child.start(5))["port"] == 4711
    await child.stop()

    async with asyncio.timeout(2):
        await child.ended()


async def test_one_that_does_not_listen_to_sigterm_is_killed(
    commands: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.local.demo_child.STOP_S", 0.2)
    write(commands, "trap '' TERM", LISTENING, "while :; do sleep 0.05; done")
    child = Child("serve")
    await child.start(5)

    async with asyncio.timeout(3):
        await child.stop()


async def test_one_that_ends_at_once_is_quoted(commands: Path) -> None:
    write(
        commands,
        """echo 'whisper-bridge: faster-whisper is not installed.' >&2""",
        """echo '{"a":1}' >&2""",
        "exit 1",
    )
    child = Child("whisper")

    with pytest.raises(BridgeError, match=r"^faster-whisper is not installed\.$"):
        await child.start(5)
    await child.stop()


async def test_one_that_says_nothing_is_named(commands: Path) -> None:
    write(commands, "exit 3")
    child = Child("whisper")

    with pytest.raises(BridgeError, match=r"^whisper-bridge whisper ended with exit code 3\.$"):
        await child.start(5)
    await child.stop()


async def test_one_that_never_listens_runs_out_of_time(commands: Path) -> None:
    write(commands, "exec sleep 30")
    child = Child("serve")

    with pytest.raises(BridgeError, match="whisper-bridge serve did not begin to listen within 0 s"):
        await child.start(0.1)
    await child.stop()


async def test_a_monstrous_log_line_does_not_block_it(commands: Path) -> None:
    write(commands, "head -c 3000000 /dev/zero | tr '\\\\0' x >&2", "echo >&2", LISTENING, "exec sleep 30")
    child = Child("serve")

    await child.start(5)
    await child.stop()


async def test_settings_of_the_user_do_not_reach_it(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SERVER__PORT", "1")
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "1")
    write(commands, "env | grep -E 'BRIDGE_|TWILIO_' >&2 || echo clean >&2", 'echo "$@" >&2', "exit 1")
    child = Child("serve", "--config", "x")

    with pytest.raises(BridgeError, match="-P -m bridge serve --config x"):
        await child.start(5)
    assert "clean" in child._last
    await child.stop()


async def test_stopping_what_never_started() -> None:
    child = Child("serve")
    await child.stop()
    child.kill()
