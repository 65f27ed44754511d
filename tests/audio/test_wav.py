import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bridge.audio import mulaw, wav
from bridge.errors import UsageError


def riff(
    data: bytes,
    *,
    tag: int = 1,
    channels: int = 1,
    rate: int = 8000,
    bits: int = 16,
    extra: bytes = b"",
    size: int | None = None,
    before: bytes = b"",
) -> bytes:
    width = channels * bits // 8
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * width, width, bits) + extra
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tone(rate: int, seconds: float = 0.5, hz: float = 440) -> NDArray[np.float64]:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(rate * seconds)) / rate)


TONE = tone(8000)
EXTENSIBLE = struct.pack("<HHIH", 22, 24, 0, 1) + bytes.fromhex("000000001000800000aa00389b71")


@pytest.fixture
def wav_file(tmp_path: Path) -> Path:
    return tmp_path / "call.wav"


@pytest.mark.parametrize(
    ("content", "tolerance"),
    [
        (riff((TONE * 127 + 128).round().astype(np.uint8).tobytes(), bits=8), 300),
        (riff((TONE * 32768).astype("<i2").tobytes()), 1),
        (riff((TONE * 2**31).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes(), bits=24), 1),
        (
            riff(
                (TONE * 2**31).astype("<i4").view(np.uint8).reshape(-1, 4)[:, 1:].tobytes(),
                tag=0xFFFE,
                bits=24,
                extra=EXTENSIBLE,
            ),
            1,
        ),
        (riff((TONE * 2**31).astype("<i4").tobytes(), bits=32), 1),
        (riff(TONE.astype("<f4").tobytes(), tag=3, bits=32), 1),
        (riff(TONE.astype("<f8").tobytes(), tag=3, bits=64), 1),
        (riff(mulaw.encode((TONE * 32768).astype(np.int16)), tag=7, bits=8), 520),
        (riff((TONE * 32768).astype("<i2").tobytes(), size=0xFFFFFFFF), 1),
        (riff((TONE * 32768).astype("<i2").tobytes(), size=0), 1),
        (riff((TONE * 32768).astype("<i2").tobytes(), before=b"LIST\x03\x00\x00\x00abc\x00"), 1),
    ],
    ids=["u8", "s16", "s24", "s24-extensible", "s32", "f32", "f64", "mulaw", "piped", "piped-0", "odd-chunk"],
)
def test_every_format_gives_the_same_sound(wav_file: Path, content: bytes, tolerance: int) -> None:
    wav_file.write_bytes(content)

    (samples,) = wav.read(wav_file, 8000)

    assert samples.dtype == np.int16
    assert len(samples) == len(TONE)
    assert np.abs(samples - TONE * 32768).max() <= tolerance


@pytest.mark.parametrize(
    ("code", "sample"), [(0xD5, 8), (0x55, -8), (0xAA, 32256), (0x2A, -32256), (0x80, 5504)]
)
def test_alaw_values_of_g711(wav_file: Path, code: int, sample: int) -> None:
    wav_file.write_bytes(riff(bytes([code]), tag=6, bits=8))

    assert wav.read(wav_file, 8000)[0].tolist() == [sample]


@pytest.mark.parametrize("have", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("want", [8000, 16000])
def test_resampling_keeps_the_tone(wav_file: Path, have: int, want: int) -> None:
    wav_file.write_bytes(riff((tone(have) * 32768).astype("<i2").tobytes(), rate=have))

    (samples,) = wav.read(wav_file, want)

    assert len(samples) == pytest.approx(want / 2, abs=1)
    middle = slice(want // 10, 4 * want // 10)
    expected = tone(want)[middle] * 32768
    assert np.abs(samples[middle] - expected).max() < 200


def test_stereo_is_two_channels_or_their_mean(wav_file: Path) -> None:
    left, right = (TONE * 32768).astype(np.int16), np.full(len(TONE), 1000, np.int16)
    wav_file.write_bytes(riff(np.column_stack([left, right]).tobytes(), channels=2))

    caller, agent = wav.read(wav_file, 8000)

    assert caller.tolist() == left.tolist()
    assert agent.tolist() == right.tolist()
    assert np.abs(wav.read_mono(wav_file, 8000) - (left / 2 + 500)).max() <= 1


def test_mono_needs_no_mixing(wav_file: Path) -> None:
    wav_file.write_bytes(riff((TONE * 32768).astype("<i2").tobytes()))

    assert wav.read_mono(wav_file, 8000).tolist() == wav.read(wav_file, 8000)[0].tolist()


def test_floats_beyond_full_scale_and_nan_are_tamed(wav_file: Path) -> None:
    wav_file.write_bytes(riff(np.array([9.0, -9.0, np.nan], "<f4").tobytes(), tag=3, bits=32))

    assert wav.read(wav_file, 8000)[0].tolist() == [32767, -32768, 0]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not a WAV file"),
        (b"ID3\x04 an mp3 rather", "is not a WAV file"),
        (b"RIFX\x00\x00\x00\x00WAVE", "is not a WAV file"),
        (b"RIFF\x24\x00\x00\x00WAVE", "no description of its format"),
        (riff(b"")[:36], "no sound"),
        (riff(b"\x00" * 100)[:80], "promises 100 bytes of sound and 36 are there"),
        (riff(b"", size=0), "without any sound"),
        (riff(b"\x00", size=1), "without any sound"),
        (
            b"RIFF\x24\x00\x00\x00WAVEfmt \x04\x00\x00\x00\x01\x00\x01\x00",
            "description of its format is too short",
        ),
        (b"RIFF\x24\x00\x00\x00WAVEdata\x04\x00\x00\x00\x01\x00\x01\x00", "comes before the description"),
        (riff(b"\x00" * 12, channels=6), "has 6 channels"),
        (riff(b"\x00" * 12, channels=0), "has 0 channels"),
        (riff(b"\x00" * 12, rate=0), "claims a rate of 0 Hz"),
        (riff(b"\x00" * 12, rate=4_000_000_000 // 2), "claims a rate of"),
        (riff(b"\x00" * 12, tag=0x31, bits=0), "format 0x0031 with 0 bits"),
        (riff(b"\x00" * 12, tag=2, bits=4), "convert it with: ffmpeg"),
        (riff(b"\x00" * 12, tag=1, bits=12), "format 0x0001 with 12 bits"),
    ],
)
@pytest.mark.parametrize("reader", [wav.read, wav.read_mono])
def test_a_bad_file_is_one_sentence(wav_file: Path, content: bytes, sentence: str, reader: object) -> None:
    wav_file.write_bytes(content)
    assert callable(reader)

    with pytest.raises(UsageError, match=sentence) as refused:
        reader(wav_file, 8000)

    assert str(wav_file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_directory_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*nowhere\.wav: No such file"):
        wav.read(tmp_path / "nowhere.wav", 8000)
    with pytest.raises(UsageError, match="Is a directory"):
        wav.read(tmp_path, 8000)
