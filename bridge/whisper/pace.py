"""How fast audio may be sent: a token bucket whose tokens are samples."""

from bridge.audio import mulaw

BURST_S = 1.0
"""Audio that may be sent at once after a quiet while, so that Twilio's own bursts pass untouched."""


class Pace:
    """Lets `speed` seconds of audio pass each second. Live audio, slower than that, earns itself a reserve."""

    def __init__(self, speed: float, now: float) -> None:
        self._rate = speed * mulaw.SAMPLE_RATE
        self._samples = 0.0
        self._at = now

    def allowed(self, now: float) -> int:
        """Samples that may be sent now."""
        self._samples = min(self._samples + (now - self._at) * self._rate, BURST_S * mulaw.SAMPLE_RATE)
        self._at = now
        return int(self._samples)

    def spend(self, samples: int) -> None:
        """Say that samples were sent."""
        self._samples -= samples
