"""One call, from the stream's start to its last final: owns its tracks, their sessions and every task of theirs."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Final

from bridge import events, log, metrics
from bridge.audio import mulaw
from bridge.call.clock import CallClock, milliseconds
from bridge.call.journals import Folder, boot, discard
from bridge.call.leg import Gap, Leg, watermark_key
from bridge.call.memo import About, Memo
from bridge.call.minutes import Minutes
from bridge.call.publisher import Taken
from bridge.call.services import Services
from bridge.call.track import Track
from bridge.config import NumberSettings
from bridge.outbox.outbox import Erased, Fenced
from bridge.whisper.scribe import Listener
from bridge.whisper.session import Session

FINISH_S: Final = 120.0
"""How long `call.ended` waits for the last finals; what is found later is a `transcript.late`."""

TURN_S: Final = 3600.0
"""How long before that an adopted call waits for its turn to be transcribed; Whisper may be away for ever."""

IDLE_STREAM_S: Final = 900.0
"""A stream that has brought nothing for so long is over, even if neither `stop` nor a close ever came."""

_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """A call that an earlier process had: its audio, and the right to go on with it."""

    folder: Folder
    memo: Memo
    taken: Taken


class Call:
    """A live call. Made and kept by `Calls`; its methods never wait, so that Twilio's reader never does."""

    def __init__(
        self, about: About, settings: NumberSettings, services: Services, adopted: Adopted | None = None
    ) -> None:
        self.about = about
        self.generation = 0
        """Counts the streams that have carried the call: only the latest may end it."""
        self.done = asyncio.Event()
        """Set when nothing of the call is left to do."""
        self.waiting = adopted is not None
        """No stream carries the call, as the process that had it is no more; one may come."""
        self.ending = False
        self.erased = False
        """Nothing may be kept of the call, audio included."""
        self.recovering = False
        """What Whisper has not finalised may as well be left to the next process: no stop waits for it."""
        self._settings = settings
        self._services = services
        self._folder = adopted.folder if adopted else services.journals.folder(about.call_sid)
        self.memo = adopted.memo if adopted else Memo.of(about, settings)
        self._clock = CallClock()
        self._legs: dict[events.Track, Leg] = {}
        self._may_transcribe = asyncio.Event()
        self._hang_up: Callable[[], None] = lambda: None
        self._heard_at = services.monotonic()
        self._logger = _logger.bind(call_sid=about.call_sid)
        self._minutes = Minutes(
            settings, services, lambda: self.memo, self._folder.id, adopted.taken if adopted else None
        )
        self._finishing: asyncio.Task[None] | None = None
        self._publishing = self._start(self._publish())
        if adopted is not None:
            self._go_on()

    def stream(
        self, stream_sid: str, tracks: list[events.Track], *, hang_up: Callable[[], None], at: float
    ) -> None:
        """Start, or go on with, the stream that carries the call's audio from now on; it started `at`, monotonic.

        `hang_up` closes its socket: when another stream takes over, and when the call ends.
        """
        first = not self.memo.stream_sid
        self.generation += 1
        self.waiting = False
        self._hang_up()
        self._hang_up = hang_up
        self._note(stream_sid=stream_sid, tracks=tracks)
        legs = self._legs.values()
        self._clock.new_stream(at, max((leg.track.received_until for leg in legs), default=0))
        for leg in self._legs.values():
            leg.track.new_stream()
        self._heard_at = self._services.monotonic()
        if first:
            self._minutes.started(tracks)
        for name in tracks:
            self._leg(name)
        self.transcribe()
        self._logger.info("stream_started", stream_sid=stream_sid, tracks=tracks)

    def media(self, name: events.Track, timestamp_ms: int | None, audio: bytes) -> None:
        """Keep audio of a track, and tell its session. Audio that comes after the end is not kept."""
        if self.ending:
            return
        now = self._services.monotonic()
        self._heard_at = now
        leg = self._legs.get(name) or self._leg(name)
        position = None if timestamp_ms is None else self._clock.position(timestamp_ms, now)
        if self.memo.began_at is None and self._clock.began_at is not None:
            began = self._clock.began_at
            self._note(began_at=self._services.wall() - (now - began), boot=boot(), began_monotonic=began)
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
        for leg in self._legs.values():
            if leg.track.idle(now):
                leg.session.heard()
        if now - self._heard_at > IDLE_STREAM_S and not self.waiting:
            self.end("idle")

    def transcribe(self) -> None:
        """Let the sessions of the call begin."""
        self._may_transcribe.set()

    @property
    def behind(self) -> bool:
        """Whether audio waits to be sent to Whisper."""
        return any(leg.behind for leg in self._legs.values())

    def end(self, reason: str) -> None:
        """The stream is over, and with it what can be transcribed of the call."""
        if self.ending:
            return
        self.ending = True
        self.waiting = False
        self._note(reason=reason)
        self._logger.info("stream_ended", stream_sid=self.memo.stream_sid, reason=reason)
        self._hang_up()
        self._finishing = self._start(self._finish(reason))

    def give_up(self, reason: str, ended_at: float | None = None) -> None:
        """End a call that no stream carries, and has none since, by Twilio's word, `ended_at` (seconds since 1970).

        What was said between the last audio and then is a gap.
        """
        if not self.waiting:
            return
        self.memo = replace(self.memo, ended_at=ended_at)  # kept by `end`, together with the reason
        if ended_at is not None and self.memo.began_at is not None:
            position = round((ended_at - self.memo.began_at) * mulaw.SAMPLE_RATE)
            for leg in self._legs.values():
                leg.track.missing_until(position)
        self.end(reason)

    async def abandon(self) -> None:
        """End every task now. Audio that is not finalised stays on disk."""
        self.ending = True
        self.waiting = False
        self._hang_up()
        tasks = [self._publishing, *(leg.task for leg in self._legs.values())]
        if self._finishing is not None:
            tasks.append(self._finishing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name, leg in self._legs.items():
            self._minutes.hush(name)
            leg.track.journal.close(delete=False)
        self.done.set()

    async def _finish(self, reason: str) -> None:
        legs = list(self._legs.values())
        duration_ms = milliseconds(max((leg.track.received_until for leg in legs), default=0))
        heard = [leg for leg in legs if leg.track.journal.end]
        for leg in legs:
            if leg in heard:
                leg.session.finish()
            else:
                leg.task.cancel()
        running = [leg.task for leg in heard]
        if running and not self._minutes.over:
            self.recovering = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await self._may_transcribe.wait()
            self.recovering = False
            await asyncio.wait(running, timeout=FINISH_S)
        unopened = any(leg.track.journal.unopened for leg in legs)
        complete = not unopened and all(leg.succeeded and not leg.session.gave_up for leg in heard)
        await self._minutes.ended(reason=reason, duration_ms=duration_ms, complete=complete)
        if unfinished := [task for task in running if not task.done()]:
            self.recovering = True
            await asyncio.wait(unfinished)
            self._logger.info("call_recovered", finals=len(self._minutes.lines))
        for leg in legs:
            leg.track.journal.close(delete=leg not in heard or leg.succeeded)
        if unopened:
            self._logger.error("journal_unopened", reason="the next process may be able to open it")
        elif all(leg.succeeded for leg in heard):
            await discard(self._folder)
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
            self.erased = isinstance(fenced, Erased)
            self._logger.warning("call_erased" if self.erased else "call_taken_over", reason=str(fenced))
            metrics.CALLS.labels("erased" if self.erased else "taken_over").inc()
            self._services.spawn(self.abandon())

    def _go_on(self) -> None:
        """Take up what an earlier process left; what it has told is not told again."""
        self._minutes.started(self.memo.tracks)
        if self.memo.began_at is not None:
            now = self._services.monotonic()
            began = now - (self._services.wall() - self.memo.began_at)
            if self.memo.boot and self.memo.boot == boot() and self.memo.began_monotonic <= now:
                began = self.memo.began_monotonic
            self._clock = CallClock(began)
        for name in self._folder.tracks():
            leg = self._leg(name)
            for gap in leg.gaps():
                self._minutes.gap(leg, gap)
        if self._minutes.over:  # what is found now is late
            self.ending = True
            self.waiting = False
            self._finishing = self._start(self._finish(self.memo.reason))

    def _note(self, **changes: Any) -> None:
        """Keep the memo for the next process, should this one be killed."""
        self.memo = replace(self.memo, **changes)
        self._folder.write(self.memo.encode())

    def _leg(self, name: events.Track) -> Leg:
        """The leg of a track, made when it is first named."""
        if name in self._legs:
            return self._legs[name]
        services, whisper, minutes = self._services, self._settings.whisper, self._minutes
        journal, key = self._folder.journal(name), watermark_key(name, self._folder.id)
        if journal.unopened:  # what comes now has offsets of its own
            key = watermark_key(name, f"{self._folder.id}.{secrets.token_hex(4)}")
        session = Session(
            journal,
            tick=services.tick,
            endpoints=services.endpoints.of(whisper),
            whisper=whisper,
            listener=Listener(
                final=lambda heard, settled: minutes.final(leg, heard, settled),
                partial=lambda heard: minutes.partial(leg, heard),
                lost=lambda start, end, why: minutes.gap(leg, leg.lost(start, end, why)),
            ),
            # The disk may have lost what is finalised, and more; what was released needs no watermark.
            start=min(max(minutes.stored(key), journal.settled), journal.end),
            last_text=minutes.last_text(name),
            logger=log.get("bridge.whisper.session").bind(call_sid=self.about.call_sid, track=name),
        )
        track = Track(
            name,
            journal,
            lambda start, end, offset: minutes.gap(leg, Gap(offset, start, end, "not_received")),
        )
        leg = self._legs[name] = Leg(track, session, key)
        leg.task = self._start(self._transcribe(leg))
        return leg

    async def _transcribe(self, leg: Leg) -> None:
        await self._may_transcribe.wait()
        await leg.session.run()
