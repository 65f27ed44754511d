"""How far a track's audio is settled: finalised and stored, or too old and too quiet to be needed again."""

from typing import Final

from bridge.audio import mulaw
from bridge.audio.voice import Stretches

QUIET_S: Final = 45.0
"""Quiet audio of this age has left a healthy server's buffer: it holds 30 s at most; the rest is for lag."""

LOUD_S: Final = 120.0
"""The same for audio in which somebody spoke, or may have: by then a server that hears nothing has been found out."""

LOUD_PEAK: Final = 250
"""A frame with a higher sample (of 32767) may be speech: -42 dB of full scale; a quiet line stays below 100."""

TAIL: Final = mulaw.SAMPLE_RATE * 3 // 10
"""A word sounds on for a while after the end that Whisper gives it; this much is no new speech."""

JOIN: Final = mulaw.SAMPLE_RATE // 4
"""Loud stretches with less than this between them are remembered as one: no server ends an utterance there."""

LEAD: Final = mulaw.SAMPLE_RATE
"""Samples before a loud stretch that may belong to it: soft first sounds."""

AGE: Final = mulaw.SAMPLE_RATE // 8
"""Samples that are sent before it is looked again what is old."""

STRETCHES: Final = 1000
"""Stretches remembered one by one: more than two minutes hold. With the outbox down for hours the rest is one."""


class Watermark:
    """An offset into the journal: everything before it is settled, and a new socket begins there.

    Without finals it moves too, or a caller on hold would make the journal grow; but only over audio that the
    same socket was sent long enough ago.
    """

    def __init__(self, start: int = 0) -> None:
        self.offset = start
        self.doubted: int | None = None
        """Where loud audio begins that it moved over without a final; None once there was one after it."""
        self._aged = -AGE  # what was sent when it was last looked what is old
        self._new_from = start  # loud audio before this is the tail of a finalised word
        self._loud: list[tuple[int, int]] = []  # stretches past the offset that may be speech
        self._listened = start  # those before this are speech

    def finalised(self, end: int) -> None:
        """A final that reaches to `end` is stored."""
        self.doubted = None
        self._aged = -AGE
        self._new_from = max(self._new_from, end + TAIL)
        self._move(end)

    def lost(self, end: int) -> None:
        """Audio before `end` cannot be had any more."""
        self._move(end)

    def sent(self, begin: int, end: int, peak: int) -> None:
        """Audio from `begin` to `end` was sent; its highest sample was `peak`."""
        if peak <= LOUD_PEAK or end <= self._new_from:
            return
        if self._loud and (begin - self._loud[-1][1] < JOIN or len(self._loud) == STRETCHES):
            begin, _ = self._loud.pop()
        self._loud.append((begin, end))

    def age(self, sent_until: int) -> None:
        """Move over what is old enough, now that audio up to `sent_until` was sent and all answers are stored."""
        if 0 <= sent_until - self._aged < AGE:
            return
        self._aged = sent_until
        quiet_before = sent_until - int(QUIET_S * mulaw.SAMPLE_RATE)
        if quiet_before > self.offset:
            loud = self._loud[0][0] if self._loud else quiet_before
            loud_before = sent_until - int(LOUD_S * mulaw.SAMPLE_RATE)
            if loud < loud_before and self.doubted is None:
                self.doubted = loud
            self._move(max(min(quiet_before, loud), loud_before))

    def skip_quiet(self, sent_until: int) -> None:
        """Move over what is quiet before the first loud stretch of what the latest socket was sent."""
        first = self._loud[0][0] if self._loud else sent_until
        self._move(first - LEAD)

    def restart(self) -> None:
        """A new socket begins at the offset: what is sent from now on counts anew."""
        self._loud.clear()
        self._listened = self.offset

    def unheard(self, before: int) -> tuple[int, int] | None:
        """Audio before `before` with loud stretches in it that nobody has listened to, and what leads up to them.

        At most `LOUD_S` of it; None if there are none.
        """
        for begin, end in self._loud:
            first = max(begin, self._listened)
            if first < min(end, before):
                start = max(self.offset, first - LEAD)
                return start, min(before, start + int(LOUD_S * mulaw.SAMPLE_RATE))
        return None

    def listened(self, span: tuple[int, int], speech: Stretches) -> None:
        """Somebody listened to what `unheard` told: what is not in `speech` was only loud, and needs no final."""
        self._aged = -AGE
        begin, end = max(span[0], self._listened), span[1]
        within = [(max(first, begin), min(last, end)) for first, last in speech]
        kept = [(0, begin), *within, (end, self._loud[-1][1] if self._loud else end)]
        self._loud = [
            (max(first, least), min(last, most))
            for first, last in self._loud
            for least, most in kept
            if max(first, least) < min(last, most)
        ]
        self._listened = max(self._listened, end)

    @property
    def unanswered(self) -> int:
        """Where the first speech past the offset begins, if there was any."""
        return max(self.offset, self._loud[0][0] - LEAD) if self._loud else self.offset

    @property
    def spoken(self) -> bool:
        """Whether audio past the offset may hold speech."""
        return bool(self._loud)

    def loud(self, before: int) -> int:
        """Samples past the offset and before `before` that may be speech."""
        return sum(max(0, min(end, before) - begin) for begin, end in self._loud)

    def speech(self, before: int) -> int:
        """The same, but only those that are."""
        return self.loud(min(before, self._listened))

    def utterance(self, not_before: int) -> tuple[int, int] | None:
        """The audio of the next final of a server that does not say where it lies; None if nothing may be speech.

        It ends where the first loud stretch past the offset does; or, if the server cannot be so far
        behind, where the last one does that ended before `not_before`.
        """
        if not self._loud:
            return None
        passed = [end for _, end in self._loud if end <= not_before]
        return self._loud[0][0], max(passed[-1:] or [self._loud[0][1]])

    def _move(self, offset: int) -> None:
        self.offset = max(self.offset, offset)
        self._new_from = max(self._new_from, self.offset)
        while self._loud and self._loud[0][1] <= self._new_from:
            self._loud.pop(0)
        if self._loud and self._loud[0][0] < self.offset:
            self._loud[0] = (self.offset, self._loud[0][1])
