from bridge.local.load.wire import Frames, Opcode, frame, masked
from bridge.local.twilio import frame as twilio


def test_frames_are_cut_wherever_the_bytes_are() -> None:
    text = "x" * 200
    data = twilio.text(text) + frame(Opcode.PING, b"?")
    for cut in range(len(data)):
        frames = Frames()
        found = frames.feed(data[:cut]) + frames.feed(data[cut:])
        assert [(opcode, masked(body, key)) for opcode, body, key in found] == [
            (Opcode.TEXT, text.encode()),
            (Opcode.PING, b"?"),
        ]
