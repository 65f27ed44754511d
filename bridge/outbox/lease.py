"""The rights to write: a call is one process's to publish for, a lane is one worker's to deliver."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from bridge.errors import BridgeError


class Fenced(BridgeError):  # noqa: N818 - named for the state that it reports
    """The call or lane has a newer owner: stop working on it."""

    @classmethod
    def call(cls, call_sid: str) -> Self:
        """Of a call."""
        return cls(f"The call {call_sid} has a newer owner.")


class Erased(Fenced):
    """The call was erased on request: remove what is left of it, and publish nothing more."""


REPLAY = "/replay"
"""Ends the name of the lane that an event goes through when it is delivered again on request."""


@dataclass(frozen=True, slots=True)
class CallLease:
    """The right to publish for a call, and where its last owner stopped."""

    call_sid: str
    owner: str
    epoch: int
    next_sequence: int
    """Next to publish; 1 for a new call."""
    watermarks: Mapping[str, int]
    """Track -> position in samples at 8 kHz before which everything is finalised."""
    ended: bool
    """It has its `call.ended`, or was erased."""
    erased: bool = False
    meta: bytes = b""
    """What the call's first owner said of it."""


@dataclass(frozen=True, slots=True)
class LaneLease:
    """The right to deliver a lane's events, from `head` on."""

    lane: str
    endpoint: str
    call_sid: str
    epoch: int
    head: int
    """The position of the next event."""
    attempts: int
    """Failed attempts of the head."""
    first_failure: float | None
    """Since when (seconds since 1970) no event of the lane was accepted; None: the last one was."""

    @property
    def replay(self) -> bool:
        """Whether its events are delivered again on an operator's request."""
        return self.lane.endswith(REPLAY)
