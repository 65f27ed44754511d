"""What a later process must know of a call to go on with it: the bridge's memo to itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from bridge import events
from bridge.config import NumberSettings


def our_number(from_: str, to: str, direction: str) -> str:
    """Which party of a call is ours: the one called, or the one that calls."""
    return from_ if direction.startswith("outbound") else to


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a call when its stream starts."""

    call_sid: str
    account_sid: str
    from_: str
    to: str
    direction: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Memo:
    """A call in the hands of one process. Kept beside its audio, and in the outbox as it was at first."""

    about: About
    endpoint: str
    """The webhook of the call: it stays, whatever the configuration says later."""
    stream_sid: str
    tracks: list[events.Track]
    mode: str
    """How its streams are started: `twilio.mode`."""
    began_at: float | None = None
    """Where the call's clock is 0, in seconds since 1970; None before the first media."""
    reason: str = ""
    """Why the call ends, once it does."""
    ended_at: float | None = None
    """When it ended by Twilio's word, in seconds since 1970, if no process had it then."""
    continued: bool = False
    """Another process had the call before, whose audio is not here."""
    boot: str = ""
    """The machine's run in which `began_monotonic` means something; empty if that is not known."""
    began_monotonic: float = 0.0
    """`began_at` on the monotonic clock, which nobody sets."""

    @classmethod
    def of(cls, about: About, settings: NumberSettings) -> Self:
        """The memo of a call that begins."""
        return cls(about, settings.webhook.url, "", [], settings.twilio.mode)

    def began(self, now: float, wall: float, boot: str) -> float:
        """Where the call's clock is 0, in seconds on this machine's monotonic clock; `began_at` must be known.

        The wall clock may have been set since: it counts only if the machine was started anew, or is another one.
        """
        if self.boot and self.boot == boot and self.began_monotonic <= now:
            return self.began_monotonic
        return now - (wall - (self.began_at or 0.0))

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, text: bytes) -> Self | None:
        """What `encode` wrote; None for anything else."""
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return None
