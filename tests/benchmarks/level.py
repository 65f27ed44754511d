"""One level of a staircase: what was measured while so many calls ran, and the figures that come of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bridge.local.twilio import Lateness
from tests.benchmarks import tag

FRAME: Final = 256
"""Samples at 8 kHz of one Whisper frame."""

Spread = dict[str, float]
"""p50, p99 and max, in ms."""


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
    delays: NDArray[np.float64]
    lateness: Lateness
    """Of the load."""

    def p99_ms(self) -> float:
        """Of the service delay; without any frame it is endless."""
        return _spread(self.delays)["p99"] if len(self.delays) else float("inf")

    def figures(self, finals: Mapping[str, float], posted: Mapping[str, float]) -> dict[str, Any]:
        """The results; `finals` and `posted` tell when each final was said by Whisper and came to the webhook."""
        seconds = self.until - self.since
        said = [text for text, at in finals.items() if self.since <= at < self.until]
        ways = np.array([posted[text] - finals[text] for text in said if text in posted])
        return {
            "calls": self.calls,
            "seconds": round(seconds, 3),
            "chunks": len(self.delays),
            "delay_ms": _spread(self.delays) if len(self.delays) else None,
            "cpu_ms_per_call_minute": round(self.cpu_s * 1000 * 60 / seconds / self.calls, 2),
            "cpu_percent": round(100 * self.cpu_s / seconds, 1),
            "rss_kb_per_call": round(self.rss_kb / self.calls, 1),
            "anonymous_kb_per_call": round(self.anonymous_kb / self.calls, 1),
            "final_to_post_ms": _spread(ways) if len(ways) else None,
            "finals": len(said),
            "load_late_ms": self.lateness.as_json(),
            "void": self.lateness.void,
            "load_cpu_percent": round(100 * self.load_cpu_s / seconds, 1),
            "sink_cpu_percent": round(100 * self.sink_cpu_s / seconds, 1),
            "load_average": round(self.load_average, 2),
        }


def whole(sent: NDArray[np.float64]) -> NDArray[np.float64]:
    """When each frame of a track was complete, from when each of its media messages was sent.

    Frame k is complete with message ceil((k + 1) * 256 / 160), counted from 1.
    """
    frames = len(sent) * tag.MESSAGE // FRAME
    complete: NDArray[np.float64] = sent[-(np.arange(1, frames + 1) * -FRAME // tag.MESSAGE) - 1]
    return complete


def delays(
    sent: NDArray[np.float64], came: Sequence[float], since: float, until: float, now: float
) -> NDArray[np.float64]:
    """From the message that completes a frame until the frame is at Whisper, for those that were complete in this time.

    What has not come counts as if it came now.
    """
    completed = whole(sent)
    arrived = np.full(len(completed), now)
    known = min(len(came), len(completed))
    arrived[:known] = came[:known]
    steady = (completed >= since) & (completed < until)
    found: NDArray[np.float64] = np.maximum(arrived - completed, 0.0)[steady]
    return found


def _spread(seconds: NDArray[np.float64]) -> Spread:
    values = np.quantile(seconds, (0.5, 0.99, 1.0), method="inverted_cdf") * 1000
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "max"), values, strict=True)}
