import numpy as np
import pytest

from bridge.audio import mulaw


def g711_linear(byte: int) -> int:
    """ITU-T G.711 table 2a, written from the segments: an independent reference for the table."""
    code = byte ^ 0xFF
    segment, step = (code >> 4) & 7, code & 15
    first = [0, 31, 95, 223, 479, 991, 2015, 4063][
        segment
    ]  # decision value where the segment begins, in 14 bits
    width = 2 << segment
    value = 0 if segment == step == 0 else first + step * width + (width // 2 if segment else width // 2 - 1)
    return (-1 if code & 0x80 else 1) * 4 * value


def test_every_byte_decodes_as_g711_says() -> None:
    assert [int(v) for v in mulaw.DECODE] == [g711_linear(b) for b in range(256)]


@pytest.mark.parametrize(
    ("byte", "value"), [(0xFF, 0), (0x7F, 0), (0x80, 32124), (0x00, -32124), (0xF0, 120)]
)
def test_landmarks(byte: int, value: int) -> None:
    assert mulaw.DECODE[byte] == value


def test_encoding_is_never_off_by_more_than_half_a_step() -> None:
    samples = np.arange(-32635, 32636).astype(np.int16)
    decoded = mulaw.decode(mulaw.encode(samples)).astype(np.int32)
    segment = np.frombuffer(mulaw.encode(samples), np.uint8).astype(np.int32) ^ 0xFF
    half_step = 4 << ((segment >> 4) & 7)
    assert (np.abs(decoded - samples) <= half_step).all()
    assert (np.diff(decoded) >= 0).all()


def test_levels_survive_a_round_trip() -> None:
    again = mulaw.decode(mulaw.encode(mulaw.DECODE))
    assert (again == mulaw.DECODE).all()


def test_agrees_with_the_standard_library_where_it_still_has_g711() -> None:
    audioop = pytest.importorskip("audioop", reason="removed from Python 3.13")
    every = bytes(range(256))
    assert audioop.ulaw2lin(every, 2) == mulaw.decode(every).tobytes()
