"""How late audio is at Whisper: from when its media messages were sent, and when its frames came.

Times are seconds of one clock, one array of them for each track.
"""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bridge.local.load import tag

FRAME: Final = 256
"""Samples at 8 kHz of one Whisper frame."""

Times = NDArray[np.float64]

Spread = dict[str, float]
"""p50, p99 and max, in ms."""


def whole(sent: Times) -> Times:
    """When each frame of a track was complete, from when each of its media messages was sent.

    Frame k is complete with message ceil((k + 1) * 256 / 160), counted from 1.
    """
    frames = len(sent) * tag.MESSAGE // FRAME
    complete: Times = sent[-(np.arange(1, frames + 1) * -FRAME // tag.MESSAGE) - 1]
    return complete


def service(sent: Times, came: ArrayLike, now: float) -> tuple[Times, Times]:
    """When each frame was complete, and how long after that it came.

    What has not come counts as if it came `now`.
    """
    completed = whole(sent)
    return completed, np.maximum(_arrived(came, len(completed), now) - completed, 0.0)


def raw(sent: Times, came: ArrayLike, now: float) -> tuple[Times, Times]:
    """When each message was sent, and how long after that all of its audio was at Whisper.

    In it are the 0 to 40 ms until a frame of 32 ms is full, which no bridge can spare. Messages whose last frame is
    not complete are left out.
    """
    frames = len(sent) * tag.MESSAGE // FRAME
    messages = frames * FRAME // tag.MESSAGE
    last = (np.arange(1, messages + 1) * tag.MESSAGE - 1) // FRAME
    return sent[:messages], np.maximum(_arrived(came, frames, now)[last] - sent[:messages], 0.0)


def spread(seconds: Times) -> Spread | None:
    """The summary; None of nothing."""
    if not len(seconds):
        return None
    values = np.quantile(seconds, (0.5, 0.99, 1.0), method="inverted_cdf") * 1000
    return {name: round(float(value), 3) for name, value in zip(("p50", "p99", "max"), values, strict=True)}


def _arrived(came: ArrayLike, frames: int, now: float) -> Times:
    arrived = np.full(frames, now)
    known = np.asarray(came, dtype=np.float64)[:frames]
    arrived[: len(known)] = known
    return arrived
