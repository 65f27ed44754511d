"""One connection's side of the protocol, without sockets, clocks or engines.

Give it what the client sent and what the engine understood; it answers with actions, to be done in
order. Positions are samples of this socket's audio.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.audio.voice import Probability
from bridge.local.whisper import message
from bridge.local.whisper.engine import Options, Recognition
from bridge.local.whisper.segmenter import Audio, Began, Ended, Segmenter
from bridge.local.whisper.start import SAMPLE_RATE, Accepted, Start, StartError, read
from bridge.local.whisper.vad import FRAME_BYTES

INTERNAL_ERROR = 1011
REASON = "Internal Server Error (in model/chainlet)."
"""What the real server closes with when its model code raises."""

ENCODING = "pcm_s16le"


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text frame."""

    text: str


@dataclass(frozen=True, slots=True)
class Open:
    """Begin this utterance."""

    utterance: int
    options: Options


@dataclass(frozen=True, slots=True)
class Feed:
    """Give audio to the utterance that was opened last."""

    utterance: int
    pcm: bytes


@dataclass(frozen=True, slots=True)
class AskPartial:
    """Ask the engine what it understands so far; bring the answer to `partial`."""

    utterance: int


@dataclass(frozen=True, slots=True)
class AskFinal:
    """End the utterance; bring the answer to `final` or `failed`."""

    utterance: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket."""

    code: int
    reason: str


Action = Send | Open | Feed | AskPartial | AskFinal | Close


@dataclass(slots=True)
class _Pending:
    """An utterance between its first sample and its final."""

    number: int
    first_sample: int
    samples: int = 0
    ended: bool = False
    flush: bool = False
    # The text of its final (or of the error instead); kept until those before it are out.
    result: str | None = None


class Session:
    """The state of one connection: waits for the start message, then takes audio and control messages."""

    def __init__(self, probability: Probability, accepted: Accepted = "any") -> None:
        self._probability = probability
        self._accepted = accepted
        self._start: Start | None = None
        self._segmenter: Segmenter | None = None
        self._finals = 0
        self._utterances = 0
        # Oldest first; only the last one may still be going on.
        self._pending: deque[_Pending] = deque()
        self._partial_asked = False
        self._partial_due = 0
        self._ending = False
        self._encoding_refused = False

    @property
    def position(self) -> int:
        """Samples of audio taken so far."""
        return self._segmenter.position if self._segmenter else 0

    @property
    def started(self) -> bool:
        """Whether a good start message came."""
        return self._start is not None

    @property
    def waiting(self) -> int:
        """Utterances that have ended and whose final is not out yet."""
        return sum(pending.ended for pending in self._pending)

    def receive(self, frame: str | bytes, now: float) -> list[Action]:
        """Take the next frame: text or binary. `now` is Unix time in seconds, only ever repeated to the client."""
        if self._start is None or self._segmenter is None:
            return self._begin(frame)
        if isinstance(frame, str):
            return self._control(frame, self._start, self._segmenter, now)
        return self._audio(frame, self._start, self._segmenter)

    def partial(self, utterance: int, recognition: Recognition | None) -> list[Action]:
        """What the engine understands of an utterance that goes on; None if it had no time to tell."""
        self._partial_asked = False
        current = self._pending[0] if self._pending else None
        if recognition is None or not recognition.segments or self._start is None or self._segmenter is None:
            return []
        # A partial that comes after its utterance ended, or while an earlier final is still missing, is stale.
        if current is None or current.number != utterance or current.ended:
            return []
        text = message.transcription(
            recognition,
            self._start,
            number=self._finals,
            final=False,
            first_sample=current.first_sample,
            samples=self._segmenter.buffered,
        )
        return [Send(text)]

    def final(self, utterance: int, recognition: Recognition) -> list[Action]:
        """What the engine understood of an utterance that ended."""
        pending = self._find(utterance)
        assert self._start is not None  # noqa: S101 - there is no utterance before the start
        pending.result = message.transcription(
            recognition,
            self._start,
            number=pending.number,
            final=True,
            first_sample=pending.first_sample,
            samples=pending.samples,
            flush=pending.flush,
        )
        return self._flush()

    def failed(self, utterance: int, sentence: str) -> list[Action]:
        """The engine could not recognise an utterance: the client gets an error instead of the final."""
        self._find(utterance).result = message.error(sentence)
        return self._flush()

    def _begin(self, frame: str | bytes) -> list[Action]:
        if not isinstance(frame, str):
            return [Close(INTERNAL_ERROR, REASON)]
        try:
            self._start = read(frame, self._accepted)
        except StartError:
            return [Close(INTERNAL_ERROR, REASON)]
        self._segmenter = Segmenter(self._start, self._probability)
        return []

    def _audio(self, frame: bytes, start: Start, segmenter: Segmenter) -> list[Action]:
        if start.encoding != ENCODING:
            refused, self._encoding_refused = self._encoding_refused, True
            return [] if refused else [Send(message.error(f"Unsupported encoding: {start.encoding}"))]
        if len(frame) != FRAME_BYTES:
            sentence = f"An audio frame must be {FRAME_BYTES} bytes (512 samples), not {len(frame)}"
            return [Send(message.error(sentence))]
        if self._ending:
            return []  # the real server stops reading audio here
        actions = [self._take(part, start, segmenter.position) for part in segmenter.push(frame)]
        due = start.partials and segmenter.speaking and segmenter.position >= self._partial_due
        # A partial is worth its price only if it can go out: not while an earlier final is still missing.
        if due and not self._partial_asked and len(self._pending) == 1:
            self._partial_asked = True
            self._partial_due = segmenter.position + int(start.partial_interval_s * SAMPLE_RATE)
            actions.append(AskPartial(self._pending[-1].number))
        return actions

    def _take(
        self, part: Began | Audio | Ended, start: Start, position: int, *, flush: bool = False
    ) -> Action:
        if isinstance(part, Began):
            self._utterances += 1
            self._pending.append(_Pending(self._utterances, part.first_sample))
            self._partial_due = position + int(start.partial_interval_s * SAMPLE_RATE)
            return Open(self._utterances, Options(start.language, start.prompt))
        current = self._pending[-1]
        if isinstance(part, Audio):
            return Feed(current.number, part.pcm)
        current.ended, current.samples, current.flush = True, part.samples, flush
        return AskFinal(current.number)

    def _control(self, text: str, start: Start, segmenter: Segmenter, now: float) -> list[Action]:
        try:
            control: Any = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return [Send(message.error("A text message must be JSON"))]
        kind = control.get("type") if isinstance(control, dict) else None
        if kind not in ("end_audio", "health_check"):
            return [Send(message.error("Unknown message: expected type end_audio or health_check"))]
        trace_id = control.get("trace_id")
        if kind == "end_audio":
            return self._end_audio(trace_id, start, segmenter)
        body = control.get("body")
        asked = isinstance(body, dict) and bool(body.get("get_partial_interval"))
        return [Send(message.health(now, trace_id, start.partial_interval_s if asked else None))]

    def _end_audio(self, trace_id: str | None, start: Start, segmenter: Segmenter) -> list[Action]:
        actions: list[Action] = [Send(message.end_audio("acknowledged", trace_id))]
        if self._ending:
            return actions
        self._ending = True
        actions += [self._take(part, start, segmenter.position, flush=True) for part in segmenter.finish()]
        return actions + self._flush()

    def _flush(self) -> list[Action]:
        """Whatever may be sent now: results in the order of speech, and `finished` after the last of them."""
        actions: list[Action] = []
        while self._pending and self._pending[0].result is not None:
            self._finals += 1
            actions.append(Send(self._pending.popleft().result or ""))
        if self._ending and not self._pending:
            actions.append(Send(message.end_audio("finished")))
        return actions

    def _find(self, utterance: int) -> _Pending:
        return next(pending for pending in self._pending if pending.number == utterance)
