"""Which calls may be streamed: as many as this process can carry, and as the Whisper endpoints take.

It is decided when Twilio asks what to do with a call, and a place is kept from then on, so that a thousand calls in
a second are not all let in because none of them has begun.
"""

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, Self

from bridge import metrics
from bridge.config import NumberSettings
from bridge.twilio.load import Load

if TYPE_CHECKING:
    from collections.abc import Callable

RESERVED_S: Final = 30.0
"""How long a place is kept; Twilio opens the socket within seconds of our answer, or not at all."""


class Place(NamedTuple):
    """What a call takes up."""

    call_sid: str
    endpoint: str
    """The URL of its Whisper endpoint. A fallback has to take what its first choice does."""
    tracks: int
    """Sockets that it opens there."""

    @classmethod
    def of(cls, call_sid: str, settings: NumberSettings) -> Self:
        """What a call with these settings will take up."""
        one = settings.twilio.mode == "connect" or settings.twilio.tracks != "both"
        return cls(call_sid, settings.whisper.endpoint_url, 1 if one else 2)


class Live(Protocol):
    """The calls that are carried now."""

    def __len__(self) -> int:
        """How many there are."""

    def __contains__(self, call_sid: str, /) -> bool:
        """Whether this is one of them."""

    def sockets(self, endpoint: str) -> int:
        """How many sockets they have at a Whisper endpoint."""


class Admission:
    """Keeps places. Sans-I/O; `now` is monotonic, in seconds.

    `max_calls` 0 stands for what is measured, `max_connections` 0 for any number. Reasons are words for a metric.
    """

    def __init__(self, live: Live, *, max_calls: int, max_connections: int) -> None:
        self.load = Load()
        self.elsewhere: Callable[[str], None] = lambda _: None
        """Is told of a call that is live here and has no place: another worker may keep one for it."""
        self._live = live
        self._max_calls = max_calls
        self._max_connections = max_connections
        self._reserved: dict[str, tuple[Place, float]] = {}  # until when, by call

    def sample(self, now: float, cpu_s: float) -> None:
        """Note how much processor time this process has used; about once a second."""
        self.load.sample(now, cpu_s, len(self._live))
        metrics.CAPACITY_CALLS.set(self._max_calls or self.load.capacity)

    def reserve(self, place: Place, now: float, *, again: bool = False) -> str:
        """Keep a place for a call that is about to be told to stream; or the reason why there is none.

        A call that is streamed `again` was let in once: it is counted, and never refused. So is one that is live.
        """
        # It is asked for twice when Twilio's first request got no answer.
        self._reserved.pop(place.call_sid, None)
        if place.call_sid in self._live:
            return ""
        if not again and (reason := self.full(place, now)):
            return reason
        self._reserved[place.call_sid] = place, now + RESERVED_S
        return ""

    def begin(self, call_sid: str) -> None:
        """The call is live: from now on it counts as that."""
        if self._reserved.pop(call_sid, None) is None:
            self.elsewhere(call_sid)

    def release(self, call_sid: str) -> None:
        """The call is live at another worker: it needs no place here."""
        self._reserved.pop(call_sid, None)

    def full(self, place: Place, now: float, *, strangers: int = 0) -> str:
        """Why a call that has no place would get none; empty if it would.

        `strangers` are sockets of calls that were let in elsewhere, and may need a place here.
        """
        self._forget(now)
        if not self._max_calls and self.load.busy:
            return "full_cpu"
        taken = len(self._live) + len(self._reserved) + strangers
        if taken >= (self._max_calls or self.load.capacity):
            return "full_calls"
        if self._max_connections:
            reserved = (each for each, _ in self._reserved.values() if each.endpoint == place.endpoint)
            sockets = self._live.sockets(place.endpoint) + sum(each.tracks for each in reserved)
            if sockets + place.tracks > self._max_connections:
                return "full_whisper"
        return ""

    def fullness(self, place: Place, now: float) -> int:
        """0: such a call would get a place; 1: it would not, but calls may come that have one; 2: none may."""
        if not self.full(place, now):
            return 0
        return 1 if self._reserved else 2

    def _forget(self, now: float) -> None:
        """Give places free that nobody came for; the oldest stands first."""
        while self._reserved:
            call_sid, (_, until) = next(iter(self._reserved.items()))
            if until > now:
                break
            del self._reserved[call_sid]
