"""One track of a call: puts what Twilio sends where it belongs in the journal, with silence in the holes."""

from collections.abc import Callable
from typing import Final

from bridge import events, metrics
from bridge.audio import mulaw
from bridge.audio.journal import Journal
from bridge.call.clock import milliseconds
from bridge.whisper.watermark import LOUD_PEAK

TOLERANCE: Final = mulaw.SAMPLE_RATE // 50
"""Samples by which a timestamp may stray before it means anything: one frame of Twilio's, 20 ms."""

FILL_LIMIT: Final = 5 * mulaw.SAMPLE_RATE
"""The longest hole that is taken for silence. Beyond it audio is missing, and that is reported."""

IDLE_S: Final = 0.6
"""Nothing received for this long is a pause, not a late packet: stalls up to 0.25 s are common."""

JOIN: Final = 2 * TOLERANCE
"""Between two streams of a call nothing is silence: what lies there and is longer than this is missing."""

_QUIET: Final = bytes(byte for byte, sample in enumerate(mulaw.DECODE.tolist()) if abs(sample) <= LOUD_PEAK)

IDLE_FILL: Final = mulaw.SAMPLE_RATE
"""Samples of silence that Whisper then hears, so that it finalises what was said before the pause."""


class Track:
    """Appends audio to a journal at its place on the call's clock. Sans-I/O; `now` is in seconds.

    A journal that has audio already is gone on with. `settled` is where another process stopped on the call's
    clock, whose audio is not here: what comes from before that is not kept, and what lies between is missing.
    """

    def __init__(
        self,
        name: events.Track,
        journal: Journal,
        on_gap: Callable[[int, int, int], None],
        settled: int | None = None,
    ) -> None:
        self.name = name
        self.journal = journal
        self.received_until = journal.clock(journal.received) if journal.end else settled or 0
        """Where the last received sample lies on the call's clock."""
        self.loud_until = self.received_until
        """Where the last one lies that may be speech."""
        self._settled = None if journal.end else settled
        self._on_gap = on_gap  # called with (start, end) on the call's clock, and the offset where they meet
        self._received_at = 0.0
        self._filled = False  # silence was added for a pause that is not over
        self._follows = False  # what comes next lies right behind what came last, here and on the clock
        self._new_stream = False
        self._uncounted = 0  # samples that are not in the metric yet
        self._seconds = metrics.AUDIO_SECONDS.labels(name)

    def media(self, position: int | None, audio: bytes, now: float) -> None:
        """Keep `audio`, which lies at `position` on the call's clock, or right after the last if None."""
        journal = self.journal
        follows = self._follows and (position is None or position == self.received_until)
        if journal.end == 0:
            audio = self._begin(position or 0, audio)
            if not audio:
                return
        elif position is not None:
            if not follows:
                self._line_up(position)
            self._new_stream = False
        journal.append(audio)
        self.received_until = self.received_until + len(audio) if follows else journal.clock(journal.end)
        self._follows = True
        self._filled = False
        if audio.translate(None, _QUIET):
            self.loud_until = self.received_until
        self._received_at = now
        self._uncounted += len(audio)

    def new_stream(self) -> None:
        """Say that a later stream brings what comes from now on."""
        self._new_stream = True

    def missing_until(self, position: int) -> None:
        """Report what was said and never came, up to `position` on the call's clock, where the call ended."""
        if (self.journal.end or self._settled is not None) and position - self.received_until > JOIN:
            self._on_gap(self.received_until, position, self.journal.received)

    def idle(self, now: float) -> bool:
        """Add silence once when nothing has been received for a while; True when it did. To be asked now and then."""
        self.count()
        if self._filled or self.journal.end == 0 or now - self._received_at < IDLE_S:
            return False
        self._fill(IDLE_FILL)
        return True

    def count(self) -> None:
        """Bring the metric up to date."""
        self._seconds.inc(self._uncounted / mulaw.SAMPLE_RATE)
        self._uncounted = 0

    def ms(self, offset: int) -> int:
        """Where an offset of the journal lies on the call's clock, in ms."""
        return milliseconds(self.journal.clock(offset))

    def _begin(self, position: int, audio: bytes) -> bytes:
        """Say where the first sample lies; returns what of its audio nobody else has."""
        settled, begin = self._settled, position
        if settled is not None and position < settled:
            audio, begin = audio[settled - position :], settled
        elif settled is not None and position - settled > JOIN:
            self.journal.seam(begin, missing_from=settled)
            self._on_gap(settled, begin, 0)
            return audio
        if audio:
            self.journal.seam(begin)
        return audio

    def _line_up(self, position: int) -> None:
        ahead = position - self.journal.clock(self.journal.end)
        if position - self.received_until > (JOIN if self._new_stream else FILL_LIMIT):
            if not self._filled:
                self._fill(IDLE_FILL)
            self.journal.seam(position, missing_from=self.received_until)
            self._on_gap(self.received_until, position, self.journal.end)
        elif ahead >= TOLERANCE:
            self._fill(ahead)
        elif ahead <= -TOLERANCE:
            if self._filled:  # the pause was a late delivery: what comes now belongs before the silence
                self.journal.seam(position)
            else:
                metrics.AUDIO_ANOMALIES.labels("backwards").inc()

    def _fill(self, samples: int) -> None:
        self.journal.fill(samples)
        self._filled = True
        self._follows = False
