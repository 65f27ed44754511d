import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import added_delay, tag
from tests.benchmarks.wire import Frames, Opcode, frame, masked


async def test_two_calls_give_a_line_of_figures() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.added_delay", "--calls", "2", "--seconds", "2", "--json"),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(40):
            line, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0
    results: dict[str, Any] = json.loads(line)
    assert [run["system"] for run in results["runs"]] == ["bridge", "floor"]
    for run in results["runs"]:
        assert run["calls"] == 2
        assert abs(run["chunks"] - 2 * 2 * 2 / 0.032) <= 4
        delay, late = run["delay_ms"], run["load_late_ms"]
        assert 0 < delay["p50"] <= delay["p99"] <= delay["max"]
        assert 0 <= late["p50"] <= late["p99"] <= late["max"]
        assert run["load_is_late"] is (late["p99"] > 5)
        assert run["cpu_ms_per_call_minute"] > 0
        assert run["driver_cpu_percent"] > 0
    assert results["runs"][0]["cpu_ratio"] > 0


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--calls", "0"], ["--calls", "1001"], ["--seconds", "1.5"]):
        with pytest.raises(SystemExit, match="2"):
            added_delay.main(arguments)
        assert "must be a whole number from 1 to" in capsys.readouterr().err


def test_audio_says_which_track_it_is() -> None:
    for number in (0, 1, 119, 120, 14399):
        assert tag.heard(tag.widened(tag.spoken(number))) == number
    assert tag.heard(bytes(range(256)) * 4) == -1


def test_frames_are_cut_wherever_the_bytes_are() -> None:
    payload = bytes(range(200))
    data = frame(Opcode.TEXT, payload, mask=True) + frame(Opcode.PING, b"?")
    for cut in range(len(data)):
        frames = Frames()
        found = frames.feed(data[:cut]) + frames.feed(data[cut:])
        assert [(opcode, masked(body, key) if key else body) for opcode, body, key in found] == [
            (Opcode.TEXT, payload),
            (Opcode.PING, b"?"),
        ]
