"""What happens to a call's media on its way: when each frame is sent, and which are not."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from bridge.local.twilio.twiml import Track

FRAME_MS: Final = 20
FRAME_BYTES: Final = 160
"""20 ms of 8 kHz mu-law: what Twilio sends in practice."""

WEBHOOK_S: Final = 15.0
"""Twilio waits this long for a voice webhook."""

Outcome = Literal["answered", "busy", "no-answer", "failed"]
Ending = Literal["stop", "open", "reset"]
"""`stop`: the message, then a proper close. `open`: neither, the socket stays. `reset`: a TCP reset."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Twilio sends nothing for `length_ms` from `at_ms`: what was said is lost, timestamps jump."""

    at_ms: int
    length_ms: int
    track: Track | None = None
    """The one track that it concerns; None: all."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Frames from `at_ms` on are held for `hold_ms` and then come all at once, timestamps continuous."""

    at_ms: int
    hold_ms: int


@dataclass(frozen=True, slots=True)
class Digit:
    """The caller presses a key at `at_ms`. Twilio reports it on `<Connect><Stream>` only."""

    at_ms: int
    digit: str


@dataclass(frozen=True, slots=True)
class Script:
    """Everything that makes one call different from a perfect one. Times are ms on the call's clock."""

    speed: float = 1.0
    """2 plays the call in half the time; timestamps stay what they are."""
    jitter_ms: float = 0.0
    """Each frame is late by up to this much; their order stays."""
    bursts: tuple[Burst, ...] = ()
    holes: tuple[Hole, ...] = ()
    digits: tuple[Digit, ...] = ()
    hangup_ms: int | None = None
    """The caller hangs up here, in the middle of a word if need be; None: when the audio is over."""
    ending: Ending = "stop"
    open_s: float = 10.0
    """How long, in seconds, a socket that `ending = "open"` leaves behind stays open."""
    callbacks: bool = True
    """False: the stream's status callbacks get lost."""
    first_timestamp_ms: int = 20
    """`timestamp` of the first media message; Twilio promises no value."""
    shared_chunks: bool = False
    """One `chunk` counter for both tracks instead of one each: which of the two Twilio does is unknown."""
    rings_s: float = 0.0
    """How long, in seconds, a call that was placed by REST rings."""
    outcome: Outcome = "answered"
    """What becomes then of a call that was placed by REST."""
    webhook_s: float = WEBHOOK_S
    """How long, in seconds, Twilio waits for a document."""
    seed: int = 0
    """Of the jitter: the same seed, the same delays."""

    def sends(self, track: Track, at_ms: int) -> bool:
        """Whether the frame that begins at `at_ms` is sent at all."""
        return not any(
            hole.at_ms <= at_ms < hole.at_ms + hole.length_ms and hole.track in {None, track}
            for hole in self.holes
        )


class Beat(NamedTuple):
    """One moment of sending: frame number `frame`, due `due_s` seconds after the first one."""

    frame: int
    due_s: float


def beats(script: Script, frames: int, first: int = 0) -> Iterator[Beat]:
    """When frames `first` to `frames` (exclusive) of a call are due, in order, in absolute seconds.

    Nothing accumulates: an unscripted frame n is due at exactly (n - first) * 20 ms / speed.
    """
    if not script.jitter_ms and not script.bursts:
        for frame in range(first, frames):
            yield Beat(frame, (frame - first) * FRAME_MS / 1000 / script.speed)
        return
    chance = random.Random(script.seed)  # noqa: S311 - a reproducible call, not a secret
    earliest = 0.0
    for frame in range(first, frames):
        at_ms = frame * FRAME_MS
        due_ms = at_ms + (chance.uniform(0, script.jitter_ms) if script.jitter_ms else 0.0)
        for burst in script.bursts:
            if burst.at_ms <= at_ms < burst.at_ms + burst.hold_ms:
                due_ms = max(due_ms, burst.at_ms + burst.hold_ms)
        earliest = max(earliest, (due_ms - first * FRAME_MS) / 1000 / script.speed)
        yield Beat(frame, earliest)
