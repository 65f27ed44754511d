"""Read a WAV file as it comes: any rate, mono or stereo, PCM, float or G.711.

The RIFF container is walked here rather than by a library because telephony recordings are often
mu-law or A-law, which neither `wave` nor scipy reads, and because a bad file must become one
sentence instead of a warning or a traceback.
"""

import struct
from math import gcd
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bridge.audio import mulaw
from bridge.errors import UsageError

Samples = NDArray[np.int16]
"""One channel, 16-bit signed."""

TELEPHONE_HZ: Final = 8_000
WHISPER_HZ: Final = 16_000


class _Tag:
    """Registered format tags (mmreg.h)."""

    PCM = 0x0001
    FLOAT = 0x0003
    ALAW = 0x0006
    MULAW = 0x0007
    EXTENSIBLE = 0xFFFE


_RATES: Final = range(1_000, 384_001)
"""Hz. Outside of this the header is wrong rather than the recording exotic."""


class _Format(NamedTuple):
    tag: int
    channels: int
    rate: int
    bits: int


def read(path: Path, rate: int) -> tuple[Samples, ...]:
    """One array a channel (one or two of them) at `rate` Hz.

    Raises UsageError, in one sentence, for a file that is missing, no WAV, cut short, empty, or in a
    format that is not read here.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}.") from None
    form, data = _chunks(path, content)
    sound = _decode(path, form, data)
    if not len(sound):
        raise UsageError(f"{path} is a WAV without any sound in it.")
    return tuple(_resample(np.ascontiguousarray(channel), form.rate, rate) for channel in sound.T)


def read_mono(path: Path, rate: int) -> Samples:
    """Both channels mixed into one at `rate` Hz. Raises UsageError as `read` does."""
    channels = read(path, rate)
    if len(channels) == 1:
        return channels[0]
    return _to_int16(np.mean(np.stack(channels), axis=0))


def _chunks(path: Path, content: bytes) -> tuple[_Format, bytes]:
    """The format and the sound of the RIFF container `content`."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise UsageError(f"{path} is not a WAV file (it does not begin with RIFF....WAVE).")
    form: _Format | None = None
    at = 12
    while at + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, at)
        body = content[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = _format(path, body)
        elif name == b"data":
            if form is None:
                raise UsageError(f"{path} is damaged: its sound comes before the description of its format.")
            # Whoever writes a WAV into a pipe cannot know its size and leaves 0 or the maximum.
            if size in {0, 0xFFFFFFFF}:
                return form, content[at + 8 :]
            if len(body) < size:
                raise UsageError(
                    f"{path} is cut short: its header promises {size} bytes of sound and {len(body)} are there.",
                )
            return form, body
        at += 8 + size + size % 2
    missing = "sound" if form else "description of its format"
    raise UsageError(f"{path} is cut short or damaged: it has no {missing}.")


def _format(path: Path, body: bytes) -> _Format:
    if len(body) < 16:
        raise UsageError(f"{path} is damaged: the description of its format is too short.")
    tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if tag == _Tag.EXTENSIBLE and len(body) >= 26:
        # The real tag is the first field of the sub-format's GUID.
        (tag,) = struct.unpack_from("<H", body, 24)
    if channels not in {1, 2}:
        raise UsageError(f"{path} has {channels} channels; mono and stereo are understood.")
    if rate not in _RATES:
        raise UsageError(f"{path} claims a rate of {rate} Hz, which no recording has.")
    return _Format(tag, channels, rate, bits)


def _decode(path: Path, form: _Format, data: bytes) -> NDArray[np.float32]:
    """Full scale is 32768; one row a sample, one column a channel."""
    frame = max(1, form.bits // 8 * form.channels)
    usable = memoryview(data)[: len(data) // frame * frame]
    samples: NDArray[np.floating]
    match form.tag, form.bits:
        case (_Tag.PCM, 8):
            samples = (np.frombuffer(usable, np.uint8).astype(np.float32) - 128) * 256
        case (_Tag.PCM, 16):
            samples = np.frombuffer(usable, "<i2").astype(np.float32)
        case (_Tag.PCM, 24):
            octets = np.frombuffer(usable, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(octets), 4), np.uint8)
            wide[:, 1:] = octets
            samples = wide.view("<i4")[:, 0].astype(np.float32) / 65536
        case (_Tag.PCM, 32):
            samples = np.frombuffer(usable, "<i4").astype(np.float32) / 65536
        case (_Tag.FLOAT, 32 | 64):
            floats = np.frombuffer(usable, f"<f{form.bits // 8}")
            # A float file may hold NaN and values far beyond full scale.
            samples = np.clip(np.nan_to_num(floats), -1, 1).astype(np.float32) * 32768
        case (_Tag.MULAW, 8):
            samples = mulaw.DECODE[np.frombuffer(usable, np.uint8)].astype(np.float32)
        case (_Tag.ALAW, 8):
            samples = _alaw_table()[np.frombuffer(usable, np.uint8)]
        case _:
            raise UsageError(
                f"{path} is a WAV of format {form.tag:#06x} with {form.bits} bits, which is not read here; "
                f"convert it with: ffmpeg -i {path.name} -c:a pcm_s16le converted.wav",
            )
    return samples.astype(np.float32, copy=False).reshape(-1, form.channels)


def _alaw_table() -> NDArray[np.float32]:
    """G.711 A-law, byte to sample (ITU-T G.711, table 1a): even bits inverted, sign, segment, step."""
    code = np.arange(256) ^ 0x55
    segment = (code & 0x70) >> 4
    step = ((code & 0x0F) << 4) + 8
    size = np.where(segment == 0, step, (step + 0x100) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, size, -size).astype(np.float32)


def _resample(channel: NDArray[np.float32], have: int, want: int) -> Samples:
    if have == want:
        return _to_int16(channel)
    from scipy.signal import resample_poly  # noqa: PLC0415 - the import takes 0.8 s, needed only here

    common = gcd(have, want)
    return _to_int16(resample_poly(channel, want // common, have // common))


def _to_int16(samples: NDArray[np.floating]) -> Samples:
    rounded: Samples = np.clip(np.rint(samples), -32768, 32767).astype(np.int16)
    return rounded
