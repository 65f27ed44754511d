"""One call, from the stream's start to its last final: owns its tracks, their sessions and every task of theirs."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSCloseCode

from bridge import events, log, metrics
from bridge.audio import mulaw
from bridge.call.carrier import Carrier
from bridge.call.clock import CallClock
from bridge.call.ending import Ending
from bridge.call.journals import Folder, boot
from bridge.call.legs import Legs
from bridge.call.memo import About, Memo
from bridge.call.minutes import Minutes
from bridge.call.publisher import Taken
from bridge.call.services import Services
from bridge.config import NumberSettings
from bridge.outbox.lease import Erased, Fenced

if TYPE_CHECKING:
    from bridge.call.lifeline import Lifelines

PAUSE: Final = mulaw.SAMPLE_RATE // 5
"""Samples of silence on every track in which one stream can take over from another."""

_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """A call that an earlier process had: its audio, or a new folder, and the right to go on with it."""

    folder: Folder
    memo: Memo
    taken: Taken


class Call:
    """A live call. Made and kept by `Calls`; its methods never wait, so that Twilio's reader never does."""

    def __init__(
        self,
        about: About,
        settings: NumberSettings,
        services: Services,
        lifelines: "Lifelines",
        adopted: Adopted | None = None,
    ) -> None:
        self.about = about
        self.settings = settings
        self.done = asyncio.Event()
        """Set when nothing of the call is left to do."""
        self.ending = False
        """Nothing more is heard here of the call: it ended, or goes on elsewhere."""
        self.leaving = False
        """It goes on elsewhere."""
        self.erased = False
        """Nothing may be kept of the call, audio included."""
        self._services = services
        self._lifelines = lifelines
        self.folder = adopted.folder if adopted else services.journals.folder(about.call_sid)
        self.memo = adopted.memo if adopted else Memo.of(about, settings)
        self._clock = CallClock()
        self.carrier = Carrier(services.monotonic(), waiting=adopted is not None)
        self._logger = _logger.bind(call_sid=about.call_sid)
        self._minutes = Minutes(
            settings, services, lambda: self.memo, self.folder.id, adopted.taken if adopted else None
        )
        self._legs = Legs(
            self.folder, settings, services, self._minutes, self._start, continued=self.memo.continued
        )
        self._ending = Ending(self._legs, self._minutes, self.folder, self._logger)
        self._finishing: asyncio.Task[None] | None = None
        self._publishing = self._start(self._publish())
        if adopted is not None:
            self._go_on()

    def stream(
        self, stream_sid: str, tracks: list[events.Track], *, hang_up: Callable[[int], None], at: float
    ) -> None:
        """Start, or go on with, the stream that carries the call's audio from now on; it started `at`, monotonic.

        `hang_up` closes its socket, with this code: when another stream takes over, and when the call ends.
        """
        first = not self.memo.stream_sid
        self.carrier.begin(hang_up, self._services.monotonic())
        self._note(stream_sid=stream_sid, tracks=tracks)
        self._clock.new_stream(at, self._legs.kept_until)
        self._legs.new_stream()
        if first:
            self._minutes.started(tracks)
        for name in tracks:
            self._legs.of(name)
        self.transcribe()
        self._logger.info("stream_started", stream_sid=stream_sid, tracks=tracks)

    def media(self, name: events.Track, timestamp_ms: int | None, audio: bytes) -> None:
        """Keep audio of a track, and tell its session. Audio that comes after the end is not kept."""
        if self.ending:
            return
        now = self._services.monotonic()
        self.carrier.heard(now)
        leg = self._legs.of(name)
        position = None if timestamp_ms is None else self._clock.position(timestamp_ms, now)
        if self.memo.began_at is None and self._clock.began_at is not None:
            began = self._clock.began_at
            self._note(began_at=self._services.wall() - (now - began), boot=boot(), began_monotonic=began)
            self._minutes.note()
        leg.track.media(position, audio, now)
        leg.session.heard()

    def dtmf(self, digit: str) -> None:
        """The caller pressed a key."""
        if self.ending:
            return
        self._minutes.digit(digit)

    def idle(self, now: float) -> None:
        """Look after tracks that nothing arrives on. `now` is monotonic, in seconds."""
        if self.ending:
            return
        self._legs.idle(now)
        if self.carrier.idle(now):
            self.end("idle")
        elif self.carrier.mute(now):
            self._lifelines.mute(self)

    def transcribe(self) -> None:
        """Let the sessions of the call begin."""
        self._legs.may_transcribe.set()

    @property
    def behind_s(self) -> float:
        """Seconds of audio that wait to be sent to Whisper, of the track that has most."""
        return self._legs.behind_s

    @property
    def recovering(self) -> bool:
        """What Whisper has not finalised may as well be left to the next process: no stop waits for it."""
        return self._ending.recovering

    @property
    def owned(self) -> bool:
        """Whether the outbox must have the call as this process's."""
        return self._minutes.owned and not self.leaving

    @property
    def over(self) -> bool:
        """Whether `call.ended` is told, or about to be."""
        return self.ending and not self.leaving

    @property
    def waiting(self) -> bool:
        """No stream carries the call; one may come."""
        return self.carrier.waiting and not self.ending

    @property
    def silent_s(self) -> float:
        """Since when its stream has brought nothing, in seconds."""
        return self.carrier.silent_s(self._services.monotonic())

    @property
    def pauses(self) -> bool:
        """Whether nobody says anything now, so that another stream can take over."""
        return self._legs.quiet(PAUSE) or self.silent_s * mulaw.SAMPLE_RATE >= PAUSE

    def detach(self) -> None:
        """Say that the operator ends the stream: that is why the call ends then, whoever tells first."""
        self._note(reason="detached")

    def end(self, reason: str) -> None:
        """The stream is over, and with it what can be transcribed of the call."""
        if self.ending:
            return
        self.ending = True
        reason = self.memo.reason or reason
        self._note(reason=reason)
        self._logger.info("stream_ended", stream_sid=self.memo.stream_sid, reason=reason)
        self.carrier.close(WSCloseCode.OK)
        self._finishing = self._start(self._finish(reason))

    def cut(self, reason: str) -> None:
        """The stream is over, but perhaps not the call: find out. `reason` is why it ends if nobody can tell."""
        if self.ending or self.waiting:
            return
        if self.memo.reason:
            self.end(self.memo.reason)
            return
        self.carrier.cut(reason, self._services.monotonic())
        self._logger.warning("stream_cut", stream_sid=self.memo.stream_sid, reason=reason)
        self._lifelines.alone(self)

    def give_up(self, reason: str, ended_at: float | None = None) -> None:
        """End a call that has no stream, or a dead one, by Twilio's word: it ended `ended_at`, seconds since 1970.

        What was said between the last audio and then is a gap.
        """
        if self.ending:
            return
        self.memo = replace(self.memo, ended_at=ended_at)  # kept by `end`, together with the reason
        if ended_at is not None and self.memo.began_at is not None:
            self._legs.missing_until(round((ended_at - self.memo.began_at) * mulaw.SAMPLE_RATE))
        self.end(reason)

    async def let_go(self, patience_s: float, *, wanted: bool, beside: bool = False) -> None:
        """Leave the call to another process; see `Ending.let_go`. A stream of ours `beside` it is ended last."""
        if self.ending:
            return
        self.ending = self.leaving = True
        if not beside:
            self.carrier.close(WSCloseCode.GOING_AWAY)
        self.transcribe()
        try:
            complete = await self._ending.let_go(patience_s, wanted=wanted, beside=beside)
        except asyncio.CancelledError:
            await self.abandon()
            raise
        self._logger.info("call_let_go", wanted=wanted, complete=complete)
        self.carrier.close(WSCloseCode.GOING_AWAY)
        self._publishing.cancel()
        self.done.set()

    def lose(self, *, erased: bool = False) -> None:
        """Another process has the call, or nobody may: let go of everything, and tell nothing.

        Its audio stays on the disk, unless it was erased.
        """
        if self.leaving or self.erased:
            return
        self.erased, self.leaving = erased, not erased
        self._logger.warning("call_erased" if erased else "call_fenced")
        (metrics.CALLS.labels("erased") if erased else metrics.FENCED).inc()
        self._services.spawn(self.abandon())

    async def abandon(self) -> None:
        """End every task now. Audio that is not finalised stays on disk."""
        self.ending = True
        self.carrier.close(WSCloseCode.GOING_AWAY)
        tasks = [self._publishing, *filter(None, [self._finishing]), *(leg.task for leg in self._legs)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for leg in self._legs:
            self._minutes.hush(leg.track.name)
            leg.track.count()
            leg.track.journal.close(delete=False)
        self.done.set()

    async def _finish(self, reason: str) -> None:
        await self._ending.finish(reason)
        self._publishing.cancel()
        self.done.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._report)
        return task

    def _report(self, task: asyncio.Task[None]) -> None:
        """A defect must not end in silence: it costs this call its transcripts, though not its audio."""
        if task.cancelled() or (defect := task.exception()) is None:
            return
        metrics.DEFECTS.inc()
        self._logger.error("call_task_failed", exc_info=defect)
        if task in {self._publishing, self._finishing}:  # without these the call would never end
            self._services.spawn(self.abandon())

    async def _publish(self) -> None:
        try:
            await self._minutes.run()
        except Fenced as fenced:
            self.lose(erased=isinstance(fenced, Erased))

    def _go_on(self) -> None:
        """Take up what an earlier process left; what it has told is not told again."""
        self._minutes.started(self.memo.tracks)
        if self.memo.began_at is not None:
            self._clock = CallClock(
                self.memo.began(self._services.monotonic(), self._services.wall(), boot())
            )
        self._legs.take_up(self.memo.tracks)
        if self._minutes.over:  # what is found now is late
            self.ending = True
            self._finishing = self._start(self._finish(self.memo.reason))
            return
        if self.memo.continued:
            self._note()
        if self.memo.reason:
            self.give_up(self.memo.reason, self.memo.ended_at)
        else:
            self._lifelines.alone(self)

    def _note(self, **changes: Any) -> None:
        """Keep the memo for the next process, should this one be killed."""
        self.memo = replace(self.memo, **changes)
        self.folder.write(self.memo.encode())
