import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from bridge.local.twilio.socket import frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 397, 65_535])
def test_a_frame_is_read_by_another_library_as_what_was_said(size: int) -> None:
    text = ("\u00e9" + "x" * (size - 2)) if size > 1 else "x" * size
    server = Protocol(Side.SERVER)

    server.receive_data(frame(text, b"\x01\x02\xfe\xff") * 2)

    received = [event for event in server.events_received() if isinstance(event, Frame)]
    assert [(event.opcode, bytes(event.data).decode()) for event in received] == [(Opcode.TEXT, text)] * 2
    assert server.parser_exc is None
