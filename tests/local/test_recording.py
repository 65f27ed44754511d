import struct
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.local import recording


def wav(path: Path, *frames: tuple[int, ...]) -> Path:
    channels = len(frames[0])
    data = b"".join(struct.pack(f"<{channels}h", *frame) for frame in frames)
    form = struct.pack("<HHIIHH", 1, channels, 8000, 16000 * channels, 2 * channels, 16)
    path.write_bytes(
        b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    )
    return path


def test_mono_is_the_caller(tmp_path: Path) -> None:
    assert recording.load([wav(tmp_path / "a.wav", (0,), (32124,))]) == {"inbound": b"\xff\x80"}


def test_stereo_is_caller_and_agent(tmp_path: Path) -> None:
    assert recording.load([wav(tmp_path / "a.wav", (0, 32124), (0, 0))]) == {
        "inbound": b"\xff\xff",
        "outbound": b"\x80\xff",
    }


def test_two_mono_files_are_caller_and_agent(tmp_path: Path) -> None:
    paths = [wav(tmp_path / "a.wav", (0,)), wav(tmp_path / "b.wav", (32124,))]

    assert recording.load(paths) == {"inbound": b"\xff", "outbound": b"\x80"}


def test_what_makes_no_call(tmp_path: Path) -> None:
    mono, stereo = wav(tmp_path / "a.wav", (0,)), wav(tmp_path / "b.wav", (0, 0))

    with pytest.raises(UsageError, match=r"b\.wav is stereo"):
        recording.load([mono, stereo])
    with pytest.raises(UsageError, match="not 3"):
        recording.load([mono, mono, mono])
