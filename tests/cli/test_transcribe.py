"""`whisper-bridge transcribe` as a person uses it."""

import json
import os
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.server import ServerConnection, serve

from bridge import log
from bridge.cli.transcribe import Screen
from bridge.cli.transcribe import transcribe as command
from bridge.errors import ConfigError, UsageError
from bridge.whisper.protocol import Transcription

Run = subprocess.CompletedProcess[str]


def answer(socket: ServerConnection) -> None:
    """A server of the seed dialect that says how many frames it got."""
    if "streaming_whisper_params" not in json.loads(socket.recv()):
        socket.close(1011)
        return
    frames = 0
    for message in socket:
        if isinstance(message, str):
            break
        frames += 1
        if frames == 2:
            socket.send(json.dumps({"is_final": False, "transcript": "two frames"}))
    socket.send(json.dumps({"is_final": True, "transcript": f"{frames} frames"}))
    socket.send(json.dumps({"type": "end_audio", "body": {"status": "finished"}}))
    for _ in socket:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    with serve(answer, "127.0.0.1", 0, compression=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/websocket"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(2 * 1280))  # five frames of 32 ms
    return path


def environment(tmp_path: Path, url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    return {**kept, "HOME": str(tmp_path), "BRIDGE_WHISPER__URL": url}


def transcribe(tmp_path: Path, url: str, *arguments: str | Path) -> Run:
    command = [sys.executable, "-m", "bridge", "transcribe", *map(str, arguments)]
    return subprocess.run(
        command, cwd=tmp_path, env=environment(tmp_path, url), capture_output=True, text=True, timeout=20, check=False
    )  # fmt: skip


def test_a_file_is_transcribed(tmp_path: Path, url: str, recording: Path) -> None:
    run = transcribe(tmp_path, url, recording, "--speed", "2")
    assert (run.stdout, run.stderr) == ("[partial] two frames\n[final] 5 frames\n", "")
    assert run.returncode == 0


def test_what_went_wrong_is_one_sentence(tmp_path: Path, recording: Path) -> None:
    cases: list[tuple[list[str | Path], int, str]] = [
        ([recording], 1, "127.0.0.1:1 could not be reached"),
        ([recording, "--microphone"], 2, "Name one of them"),
    ]
    for arguments, code, words in cases:
        run = transcribe(tmp_path, "ws://127.0.0.1:1/websocket", *arguments)
        assert run.returncode == code
        assert words in run.stderr
        assert len(run.stderr.splitlines()) == 1
        assert not run.stdout


def test_wrong_usage(tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "configure", lambda _: None)  # would stay for the tests after this one
    with pytest.raises(UsageError, match="Name one of them"):
        command()
    with pytest.raises(UsageError, match="--seconds is for --microphone"):
        command(recording, seconds=1)
    with pytest.raises(UsageError, match="No such file"):
        command(tmp_path / "none.wav")
    with pytest.raises(ConfigError, match="does not exist"):
        command(recording, config=tmp_path / "none.toml")


def test_ctrl_c_ends_the_listening_and_the_last_words_come(tmp_path: Path, url: str) -> None:
    double = tmp_path / "sounddevice.py"
    double.write_text(
        "import threading, time\n"
        "class PortAudioError(Exception): pass\n"
        "class RawInputStream:\n"
        "    def __init__(self, callback, **_): self.callback, self.on = callback, True\n"
        "    def speak(self):\n"
        "        while self.on: self.callback(bytes(1024), 512, None, None); time.sleep(0.01)\n"
        "    def __enter__(self): self.thread = threading.Thread(target=self.speak); self.thread.start()\n"
        "    def __exit__(self, *_): self.on = False; self.thread.join()\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-m", "bridge", "transcribe", "--microphone"],
        cwd=tmp_path,
        env={**environment(tmp_path, url), "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout is not None
        assert run.stderr is not None
        assert run.stderr.readline() == "Listening; Ctrl-C ends it.\n"
        assert run.stdout.readline() == "[partial] two frames\n"
        run.send_signal(signal.SIGINT)
        assert run.stdout.read().startswith("[final] ")
        assert run.stderr.read() == ""
    assert run.returncode == 0


def said(text: str, *, is_final: bool = False) -> Transcription:
    return Transcription(is_final=is_final, text=text, segments=(), language=None)


def test_partials_are_replaced_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "25")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    screen = Screen()
    for each in (
        said("one"),
        said("one"),
        said(""),
        said("one two three four five"),
        said("one two.", is_final=True),
        said("six"),
    ):
        screen.show(each)
    screen.end()
    erased = "\r\x1b[2K"
    assert capsys.readouterr().out == (
        f"[partial] one{erased}[partial] ... four five{erased}[final] one two.\n[partial] six{erased}"
    )
    assert screen.finals == 1
