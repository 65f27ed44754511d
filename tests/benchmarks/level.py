"""One level of a staircase: what was measured while so many calls ran, and the figures that come of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from bridge.local.load import delay
from bridge.local.twilio import Lateness

MINUTE_S: Final = 60.0

LEAST: Final = 1000
"""What has less than one frame in so many is no minute, but the end of one that was told late."""

Times = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Delays:
    """Of the frames and messages of all calls whose time was in a level. All times are in seconds."""

    service: Times
    """From the message that completes a frame until the frame is at Whisper."""
    completed: Times
    """When each of those frames was complete, since the level began."""
    raw: Times
    """From each message until the frame with its last sample is at Whisper."""

    @classmethod
    def of(
        cls, lines: Sequence[tuple[Times, Sequence[float]]], since: float, until: float, now: float
    ) -> Self:
        """From when each line's messages were sent, and when its frames came."""
        service, completed, raw = [np.array([])], [np.array([])], [np.array([])]
        for sent, came in lines:
            at, late = delay.service(sent, came, now)
            steady = (at >= since) & (at < until)
            completed.append(at[steady] - since)
            service.append(late[steady])
            at, late = delay.raw(sent, came, now)
            raw.append(late[(at >= since) & (at < until)])
        return cls(np.concatenate(service), np.concatenate(completed), np.concatenate(raw))

    def p99_by_minute(self) -> list[float]:
        """The service delay's p99 in ms, for each minute of the level, a begun one at its end included: whether it grows."""
        minutes = (self.completed // MINUTE_S).astype(int)
        each = (self.service[minutes == minute] for minute in np.unique(minutes))
        spreads = (delay.spread(one) for one in each if len(one) * LEAST > len(self.service))
        return [spread["p99"] for spread in spreads if spread]


STOLEN: Final = 0.02
"""The share of a processor beyond which a host that gives it to others makes everything late."""


@dataclass(slots=True)
class Level:
    """So many calls between two moments. All times are seconds of the monotonic clock."""

    calls: int
    since: float
    until: float
    cpu_s: float
    load_cpu_s: float
    """Of the load and the webhooks' receiver."""
    sink_cpu_s: float
    """Of the Whisper server."""
    rss_kb: int
    """Growth since before the first call."""
    anonymous_kb: int
    """The part of it that is not the journals' pages."""
    load_average: float
    """Of the machine, over the minute before."""
    stolen_s: float
    """Processor time that this machine wanted and its host gave to others."""
    delays: Delays
    lateness: Lateness
    """Of the load."""

    @property
    def busy(self) -> float:
        """The share of one processor that the system used."""
        return self.cpu_s / (self.until - self.since)

    @property
    def stolen(self) -> float:
        """The share of one processor."""
        return self.stolen_s / (self.until - self.since)

    @property
    def doubtful(self) -> bool:
        """Whether it says more of the machine than of the system."""
        return self.lateness.void or self.stolen > STOLEN

    def p99_ms(self) -> float:
        """Of the service delay; without any frame it is endless."""
        spread = delay.spread(self.delays.service)
        return spread["p99"] if spread else float("inf")

    def figures(self, finals: Mapping[str, float], posted: Mapping[str, float]) -> dict[str, Any]:
        """The results; `finals` and `posted` tell when each final was said by Whisper and came to the webhook."""
        seconds = self.until - self.since
        said = [text for text, at in finals.items() if self.since <= at < self.until]
        ways = np.array([posted[text] - finals[text] for text in said if text in posted])
        return {
            "calls": self.calls,
            "seconds": round(seconds, 3),
            "chunks": len(self.delays.service),
            "delay_ms": delay.spread(self.delays.service),
            "raw_delay_ms": delay.spread(self.delays.raw),
            "delay_p99_ms_by_minute": self.delays.p99_by_minute(),
            "cpu_ms_per_call_minute": round(self.cpu_s * 1000 * MINUTE_S / seconds / self.calls, 2),
            "cpu_percent": round(100 * self.busy, 1),
            "rss_kb_per_call": round(self.rss_kb / self.calls, 1),
            "anonymous_kb_per_call": round(self.anonymous_kb / self.calls, 1),
            "final_to_post_ms": delay.spread(ways),
            "finals": len(said),
            "load_late_ms": self.lateness.as_json(),
            "void": self.lateness.void,
            "load_cpu_percent": round(100 * self.load_cpu_s / seconds, 1),
            "sink_cpu_percent": round(100 * self.sink_cpu_s / seconds, 1),
            "load_average": round(self.load_average, 2),
            "stolen_percent": round(100 * self.stolen, 2),
        }
