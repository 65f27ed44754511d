"""The command as a person runs it: a process, its log, its signals and its exit codes."""

import json
import signal
import subprocess
import sys

import pytest

COMMAND = (sys.executable, "-m", "bridge", "whisper")

pytest.importorskip("pocketsphinx", reason="the recogniser is an extra: pip install 'whisper-bridge[local]'")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_listens_and_ends_cleanly(stop: signal.Signals) -> None:
    with subprocess.Popen([*COMMAND, "--port", "0"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.readline())
        assert line["event"] == "listening"
        assert line["port"] > 0
        assert line["url"] == f"ws://127.0.0.1:{line['port']}/websocket"
        assert "pocketsphinx" in line["engine"]
        process.send_signal(stop)
        assert process.wait(timeout=10) == 0
        assert [json.loads(rest)["event"] for rest in process.stderr] == ["stopped"]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["--engine", "vosk"], 2, "'vosk' is not one of"),
        (["--engine", "pocketsphinx", "--model", "small.en"], 2, "brings its own model"),
        (["--host", "192.0.2.1"], 1, "Cannot listen on 192.0.2.1:9090"),
        (["--config", "/nonexistent.toml"], 2, "/nonexistent.toml"),
    ],
)
def test_bad_usage_is_one_sentence(arguments: list[str], status: int, says: str) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
