"""What a simulated call has to tell afterwards."""

from array import array
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from bridge.local.twilio.script import FRAME_MS

LATE_MS: Final = 5.0
"""A quarter of a frame. Beyond it at p99 a simulator that carries many calls does not measure what it says."""


@dataclass(frozen=True, slots=True)
class Lateness:
    """How far behind the schedule frames were sent, in ms: the simulator's own fault, never the script's."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0

    @classmethod
    def of(cls, seconds: ArrayLike) -> "Lateness":
        """The summary of one value a frame, in seconds."""
        late = np.asarray(seconds)
        if not len(late):
            return cls()
        found = np.quantile(late, (0.5, 0.99, 1.0), method="inverted_cdf")
        return cls(*(round(1000 * float(value), 3) for value in found))

    @classmethod
    def of_all(cls, calls: "Iterable[CallReport]") -> "Lateness":
        """The summary of all frames of these calls."""
        return cls.of(np.concatenate([[], *(stream.late_s for call in calls for stream in call.streams)]))

    @property
    def void(self) -> bool:
        """Whether delays that were measured with this load say nothing."""
        return self.p99_ms > LATE_MS

    def as_json(self) -> dict[str, float]:
        """For programs, in ms."""
        return {"p50": self.p50_ms, "p99": self.p99_ms, "max": self.max_ms}


@dataclass(slots=True)
class StreamReport:
    """One `<Stream>`: one WebSocket, from its handshake to its end."""

    stream_sid: str
    url: str
    """As the bridge wrote it, and as it was signed."""
    name: str = ""
    status: int | None = None
    """HTTP status of the handshake: 101 when it opened, None when nothing answered."""
    first_frame: int = 0
    """The frame of the call, 20 ms each, with which it began."""
    first_at: float | None = None
    """Wall time (`time.time()`) of its first media message."""
    frames: int = 0
    """Media messages sent, both tracks."""
    late_s: MutableSequence[float] = field(default_factory=lambda: array("d"), repr=False)
    """One value for each moment of sending; see `lateness`."""
    closed_by_bridge: bool = False
    close_code: int | None = None
    error: str = ""
    """Twilio's error code and what happened, empty if nothing did."""

    @property
    def lateness(self) -> Lateness:
        """How well this stream kept its schedule."""
        return Lateness.of(self.late_s)


@dataclass(frozen=True, slots=True)
class Callback:
    """One POST to the stream's status callback; `status` None: no answer, or not sent elsewhere."""

    event: str
    status: int | None


@dataclass(frozen=True, slots=True)
class Document:
    """One document of the call flow that was asked for; `problem` is empty when it came, or is a stranger's."""

    url: str
    problem: str


@dataclass(slots=True)
class CallReport:
    """A whole call. `problem` is empty when the bridge took it from beginning to end."""

    call_sid: str
    voice_status: int | None = None
    """HTTP status of the first answer of the voice URL; None when nothing answered."""
    problem: str = ""
    documents: list[Document] = field(default_factory=list)
    streams: list[StreamReport] = field(default_factory=list)
    callbacks: list[Callback] = field(default_factory=list)
    sent: MutableSequence[float] = field(default_factory=lambda: array("d"), repr=False)
    """Wall time (`time.time()`) at which each 20 ms of the call's clock were sent."""

    def note(self, problem: str) -> None:
        """Something went wrong; the first sentence is what the report tells."""
        self.problem = self.problem or problem

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return not self.problem

    @property
    def outcome(self) -> str:
        """One sentence."""
        if self.problem:
            return self.problem
        seconds = len(self.sent) * FRAME_MS / 1000
        return f"{seconds:.1f} s of call, {self.frames_sent} media messages, at most {self.lateness.max_ms:.1f} ms late."

    @property
    def stream_sid(self) -> str:
        """The last stream's identifier, empty if there was none."""
        return self.streams[-1].stream_sid if self.streams else ""

    @property
    def frames_sent(self) -> int:
        """Media messages of all streams and tracks."""
        return sum(stream.frames for stream in self.streams)

    @property
    def lateness(self) -> Lateness:
        """How well the call kept its schedule, all streams together."""
        return Lateness.of_all([self])

    @property
    def first_media_at(self) -> float | None:
        """Wall time of the first media message."""
        return self.sent[0] if self.sent else None

    def sent_at(self, call_ms: float) -> float | None:
        """Wall time at which the audio at `call_ms` of the call's clock was sent; None if none was."""
        if not self.sent:
            return None
        return self.sent[min(max(int(call_ms // FRAME_MS), 0), len(self.sent) - 1)]

    def as_json(self) -> dict[str, object]:
        """For programs: `simulate --report json`."""
        return {
            "call_sid": self.call_sid,
            "ok": self.ok,
            "outcome": self.outcome,
            "voice_status": self.voice_status,
            "first_media_at": self.first_media_at,
            "duration_ms": len(self.sent) * FRAME_MS,
            "frames_sent": self.frames_sent,
            "lateness_ms": self.lateness.as_json(),
            "streams": [
                {
                    "stream_sid": stream.stream_sid,
                    "url": stream.url,
                    "status": stream.status,
                    "frames": stream.frames,
                    "closed_by": "bridge" if stream.closed_by_bridge else "twilio",
                    "close_code": stream.close_code,
                    "error": stream.error or None,
                }
                for stream in self.streams
            ],
            "callbacks": [
                {"event": callback.event, "status": callback.status} for callback in self.callbacks
            ],
        }
