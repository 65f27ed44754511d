"""The clock of one call: where Twilio's timestamps lie, in samples since the call's first media."""

from bridge.audio import mulaw

SAMPLES_PER_MS = mulaw.SAMPLE_RATE // 1000


class CallClock:
    """0 is the first media of either track, whatever its timestamp was.

    A stream's timestamps count from that stream's own start. When a later stream takes the call over, its
    first media lies where the wall clock says, and the clock goes on from there.
    """

    def __init__(self) -> None:
        self._origin_ms: int | None = None  # the timestamp of this stream's first media
        self._origin_samples = 0  # and where that media lies on the call's clock
        self._began_at: float | None = None  # seconds, when the call's first media arrived

    def new_stream(self) -> None:
        """Say that timestamps start anew with the next media."""
        self._origin_ms = None

    def position(self, timestamp_ms: int, now: float) -> int:
        """Where media with this timestamp lies, in samples. Never before 0."""
        if self._origin_ms is None:
            self._origin_ms = timestamp_ms
            if self._began_at is None:
                self._began_at = now
            self._origin_samples = round((now - self._began_at) * mulaw.SAMPLE_RATE)
        return max(0, self._origin_samples + (timestamp_ms - self._origin_ms) * SAMPLES_PER_MS)


def milliseconds(samples: int) -> int:
    """Samples at 8 kHz as whole milliseconds."""
    return samples // SAMPLES_PER_MS
