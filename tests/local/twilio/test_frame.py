import json

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from bridge.local.twilio import Track, frame
from bridge.local.twilio.message import Writer


def read(data: bytes) -> list[tuple[Opcode, str]]:
    """What another library makes of it."""
    server = Protocol(Side.SERVER)
    server.receive_data(data)
    received = [event for event in server.events_received() if isinstance(event, Frame)]
    assert server.parser_exc is None
    return [(event.opcode, bytes(event.data).decode()) for event in received]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 397, 65_535])
def test_a_frame_is_read_by_another_library_as_what_was_said(size: int) -> None:
    text = ("\u00e9" + "x" * (size - 2)) if size > 1 else "x" * size

    assert read(frame.text(text) * 2) == [(Opcode.TEXT, text)] * 2


@pytest.mark.parametrize("cut", range(9))
def test_a_message_may_be_masked_in_pieces(cut: int) -> None:
    text = "a message"

    pieces = frame.head(len(text)) + frame.masked(text[:cut]) + frame.masked(text[cut:], cut)

    assert read(pieces) == [(Opcode.TEXT, text)]


def test_media_frames_say_what_the_text_says_for_each_stream_and_whatever_was_sent_before() -> None:
    for stream_sid in ("MZ1", "MZ22", "MZ333", "MZ4444"):
        texts, frames = Writer("AC1", "CA1", stream_sid), Writer("AC1", "CA1", stream_sid)
        for count in range(120):
            track: Track = "inbound" if count % 3 else "outbound"
            text = texts.media(track, 20 * count, bytes([count]) * 160)

            assert read(frames.media_frame(track, 20 * count, bytes([count]) * 160)) == [(Opcode.TEXT, text)]
            assert json.loads(text)["streamSid"] == stream_sid
            assert json.loads(text)["sequenceNumber"] == str(count + 1)
