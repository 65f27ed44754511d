"""The clock of one call: where Twilio's timestamps lie, in samples since the call's first media."""

from bridge.audio import mulaw

SAMPLES_PER_MS = mulaw.SAMPLE_RATE // 1000


class CallClock:
    """0 is the first media of either track, whatever its timestamp was.

    A stream's timestamps count from that stream's own start. When a later stream takes the call over, its
    first media lies where the wall clock says, and the clock goes on from there. Media may wait behind its
    `start` until the stream is admitted: then it is as old as its timestamp says. Times are in seconds.
    """

    def __init__(self, began_at: float | None = None) -> None:
        self.began_at = began_at
        """When the call's first media arrived; None before it."""
        self._started_at = 0.0  # of this stream
        self._not_before = 0  # where its first media lies at the earliest
        self._origin_ms: int | None = None  # the timestamp of its first media
        self._origin_samples = 0  # and where that media lies on the call's clock

    def new_stream(self, at: float, not_before: int = 0) -> None:
        """Say that a stream has started, so timestamps start anew with the next media.

        That lies at `not_before` samples or later, where the last stream's audio ends: a clock may have been set.
        """
        self._started_at = at
        self._not_before = not_before
        self._origin_ms = None

    def position(self, timestamp_ms: int, now: float) -> int:
        """Where media with this timestamp lies, in samples. Never before 0."""
        if self._origin_ms is None:
            self._origin_ms = timestamp_ms
            arrived_at = min(now, self._started_at + timestamp_ms / 1000)
            if self.began_at is None:
                self.began_at = arrived_at
            elapsed = round((arrived_at - self.began_at) * mulaw.SAMPLE_RATE)
            self._origin_samples = max(elapsed, self._not_before)
        return max(0, self._origin_samples + (timestamp_ms - self._origin_ms) * SAMPLES_PER_MS)


def milliseconds(samples: int) -> int:
    """Samples at 8 kHz as whole milliseconds."""
    return samples // SAMPLES_PER_MS
