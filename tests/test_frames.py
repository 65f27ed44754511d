import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from bridge import frames


def received(data: bytes) -> list[Frame]:
    """What websockets' server makes of it."""
    server = Protocol(Side.SERVER, state=State.OPEN)
    server.receive_data(data)
    return [event for event in server.events_received() if isinstance(event, Frame)]


def test_a_server_reads_audio_as_the_message_that_it_was() -> None:
    sent = [random.Random(number).randbytes(frames.AUDIO) for number in range(2000)]
    found = received(b"".join(map(frames.audio, sent)))
    assert [frame.data for frame in found] == sent
    assert {(frame.opcode, frame.fin) for frame in found} == {(Opcode.BINARY, True)}


def test_hardly_two_messages_have_the_same_mask() -> None:
    masks = {frames.audio(bytes(frames.AUDIO))[4:8] for _ in range(1500)}
    assert len(masks) > 1490  # of 2**32


@pytest.mark.parametrize("name", ["websockets.utils", "websockets.speedups"])
def test_both_ways_of_masking_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "apply_mask", pytest.importorskip(name).apply_mask)
    audio = bytes(range(256)) * 4
    assert received(frames.audio(audio))[0].data == audio


@given(
    payload=st.binary(max_size=300) | st.integers(65_500, 65_600).map(bytes),
    opcode=st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]),
    fin=st.booleans(),
    mask=st.booleans(),
    around=st.tuples(st.binary(max_size=20), st.binary(max_size=20)),
)
def test_frames_are_found_wherever_they_lie(
    payload: bytes, opcode: Opcode, fin: bool, mask: bool, around: tuple[bytes, bytes]
) -> None:
    frame = Frame(opcode, payload, fin).serialize(mask=mask)
    data, begin = around[0] + frame + around[1], len(around[0])
    body, end = frames.span(data, begin)
    assert data[begin:end] == frame
    whole = opcode is Opcode.TEXT and fin
    assert frames.text(data, begin, body, end) == (payload if whole else None)
    ends = [frames.span(frame[:size], 0)[1] for size in range(2, min(len(frame), 20))]
    assert all(size < known for size, known in enumerate(ends, 2)), (
        "what is not whole ends behind what there is"
    )
    assert all(known <= later for known, later in pairwise([*ends, len(frame)]))


@given(size=st.integers(126, 400) | st.just(65_535), mask=st.booleans())
def test_one_whole_long_masked_text_is_told_from_everything_else(size: int, mask: bool) -> None:
    payload = b"x" * size
    frame = Frame(Opcode.TEXT, payload).serialize(mask=mask)
    assert frames.sole_text(frame) == (payload if mask else None)
    assert frames.sole_text(frame + b"\x81") is None
    assert all(frames.sole_text(frame[:end]) is None for end in {*range(12), len(frame) - 1})


def test_other_frames_are_not_the_one_text() -> None:
    short = Frame(Opcode.TEXT, b"x" * 125).serialize(mask=True)
    longest = Frame(Opcode.TEXT, b"x" * 65_536).serialize(mask=True)
    binary = Frame(Opcode.BINARY, b"x" * 200).serialize(mask=True)
    part = Frame(Opcode.TEXT, b"x" * 200, fin=False).serialize(mask=True)
    assert [frames.sole_text(frame) for frame in (short, longest, binary, part)] == [None] * 4
