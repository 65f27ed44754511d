"""The demo call: two tracks of synthesised speech, and what is said in them. See README.md here."""

from pathlib import Path
from typing import Literal

import msgspec

Speaker = Literal["caller", "agent"]

_HERE = Path(__file__).parent

CALLER = _HERE / "caller.wav"
"""What the caller says: 8 kHz, 16 bit, mono; on the call's clock, as long as `AGENT`."""
AGENT = _HERE / "agent.wav"
"""What the agent says."""


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence of the call, and its place on the call's clock in milliseconds."""

    speaker: Speaker
    text: str
    start_ms: int
    end_ms: int


def script() -> list[Line]:
    """What is said, in the order of its beginning."""
    return msgspec.json.decode((_HERE / "script.json").read_bytes(), type=list[Line])


def text(speaker: Speaker) -> str:
    """All that one speaker says."""
    return " ".join(line.text for line in script() if line.speaker == speaker)
