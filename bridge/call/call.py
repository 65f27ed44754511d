"""One call, from the stream's start to its last final: owns its tracks, their sessions and every task of theirs."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bridge import events, log, metrics
from bridge.audio.journal import Journal
from bridge.call.clock import CallClock, milliseconds
from bridge.call.publisher import Publisher
from bridge.call.services import Services
from bridge.call.track import Track
from bridge.config import NumberSettings
from bridge.outbox.outbox import Fenced
from bridge.transcript.heard import Heard
from bridge.whisper.session import Listener, Session

FINISH_S: Final = 120.0
"""How long `call.ended` waits for the last finals; what is found later is a `transcript.late`."""

IDLE_STREAM_S: Final = 900.0
"""A stream that has brought nothing for so long is over, even if neither `stop` nor a close ever came."""

_logger = log.get(__name__)


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a call when its stream starts."""

    call_sid: str
    account_sid: str
    from_: str
    to: str
    direction: str
    parameters: Mapping[str, str]


@dataclass(slots=True)
class _Leg:
    """A track, its session, and the task that runs it."""

    track: Track
    session: Session
    task: asyncio.Task[None] = field(repr=False)


class Call:
    """A live call. Made and kept by `Calls`; its methods never wait, so that Twilio's reader never does."""

    def __init__(self, about: About, settings: NumberSettings, services: Services) -> None:
        self.about = about
        self.stream_sid = ""
        self.generation = 0
        """Counts the streams that have carried the call: only the latest may end it."""
        self.done = asyncio.Event()
        """Set when nothing of the call is left to do."""
        self.ending = False
        self._settings = settings
        self._services = services
        self._clock = CallClock()
        self._legs: dict[events.Track, _Leg] = {}
        self._hang_up: Callable[[], None] = lambda: None
        self._lines: list[events.TranscriptLine] = []
        self.recovering = False
        """`call.ended` is stored, and audio that Whisper has not finalised is left."""
        self._ended = False  # what is said from now on comes after `call.ended`
        self._heard_at = services.monotonic()
        self._logger = _logger.bind(call_sid=about.call_sid)
        self._publisher = Publisher(
            services.outbox,
            call_sid=about.call_sid,
            owner=services.node,
            endpoint=settings.webhook.url,
            subscribed=frozenset(settings.webhook.events),
            about=self._fields,
            clock=services.wall,
        )
        self._publishing = self._start(self._publish())
        self._finishing: asyncio.Task[None] | None = None

    def stream(self, stream_sid: str, tracks: list[events.Track], hang_up: Callable[[], None]) -> None:
        """Start, or go on with, the stream that carries the call's audio from now on.

        `hang_up` closes its socket: when another stream takes over, and when the call ends.
        """
        first = not self.generation
        self.generation += 1
        self._hang_up()
        self._hang_up = hang_up
        self.stream_sid = stream_sid
        self._clock.new_stream()
        self._heard_at = self._services.monotonic()
        if first:
            self._publisher.post(events.CallStarted, events.CallStartedData, tracks=tracks)
        for name in tracks:
            self._leg(name)
        self._logger.info("stream_started", stream_sid=stream_sid, tracks=tracks)

    def media(self, name: events.Track, timestamp_ms: int | None, audio: bytes) -> None:
        """Keep audio of a track, and tell its session. Audio that comes after the end is not kept."""
        if self.ending:
            return
        now = self._services.monotonic()
        self._heard_at = now
        leg = self._legs.get(name) or self._leg(name)
        position = None if timestamp_ms is None else self._clock.position(timestamp_ms, now)
        leg.track.media(position, audio, now)
        leg.session.heard()

    def dtmf(self, digit: str) -> None:
        """The caller pressed a key."""
        if self.ending:
            return
        self._publisher.post(events.CallDtmf, events.CallDtmfData, digit=digit)

    def idle(self, now: float) -> None:
        """Look after tracks that nothing arrives on. `now` is monotonic, in seconds."""
        if self.ending:
            return
        for leg in self._legs.values():
            if leg.track.idle(now):
                leg.session.heard()
        if now - self._heard_at > IDLE_STREAM_S:
            self.end("idle")

    def end(self, reason: str) -> None:
        """The stream is over, and with it what can be transcribed of the call."""
        if self.ending:
            return
        self.ending = True
        self._logger.info("stream_ended", stream_sid=self.stream_sid, reason=reason)
        self._hang_up()
        self._finishing = self._start(self._finish(reason))

    async def abandon(self) -> None:
        """End every task now. Audio that is not finalised stays on disk."""
        self.ending = True
        self._hang_up()
        tasks = [self._publishing, *(leg.task for leg in self._legs.values())]
        if self._finishing is not None:
            tasks.append(self._finishing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for leg in self._legs.values():
            leg.track.journal.close(delete=False)
        self.done.set()

    async def _finish(self, reason: str) -> None:
        duration_ms = milliseconds(max((leg.track.received_until for leg in self._legs.values()), default=0))
        heard = [leg for leg in self._legs.values() if leg.track.journal.end]
        for leg in self._legs.values():
            if leg in heard:
                leg.session.finish()
            else:
                leg.task.cancel()
        running = [leg.task for leg in heard]
        if running:
            await asyncio.wait(running, timeout=FINISH_S)
        complete = all(_succeeded(leg.task) and not leg.session.gave_up for leg in heard)
        self._ended = True
        await self._publisher.publish(
            events.CallEnded,
            events.CallEndedData,
            reason=reason,
            duration_ms=duration_ms,
            complete=complete,
            transcript=sorted(self._lines, key=lambda line: line.start_ms),
        )
        self.recovering = True
        metrics.CALLS.labels(reason).inc()
        self._logger.info(
            "call_ended", reason=reason, duration_ms=duration_ms, complete=complete, finals=len(self._lines)
        )
        if unfinished := [task for task in running if not task.done()]:
            await asyncio.wait(unfinished)
            self._logger.info("call_recovered", finals=len(self._lines))
        for leg in self._legs.values():
            leg.track.journal.close(delete=leg not in heard or _succeeded(leg.task))
        self._services.journals.discard(self.about.call_sid)
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
            await self._publisher.run()
        except Fenced as fenced:
            self._logger.warning("call_taken_over", reason=str(fenced))
            self._services.spawn(self.abandon())

    def _leg(self, name: events.Track) -> _Leg:
        """The leg of a track, made when it is first named."""
        if name in self._legs:
            return self._legs[name]
        services, whisper = self._services, self._settings.whisper
        journal = Journal(services.journals.directory(self.about.call_sid) / name)
        track = Track(name, journal, lambda start, end: self._gap(name, start, end, "not_received"))
        session = Session(
            journal,
            tick=services.tick,
            endpoints=services.endpoints.of(whisper),
            whisper=whisper,
            listener=Listener(
                final=lambda heard, settled: self._final(leg, heard, settled),
                partial=lambda heard: self._partial(leg, heard),
                lost=lambda start, end, why: self._gap(name, journal.clock(start), journal.clock(end), why),
            ),
            logger=log.get("bridge.whisper.session").bind(call_sid=self.about.call_sid, track=name),
        )
        leg = self._legs[name] = _Leg(track, session, self._start(session.run()))
        return leg

    async def _final(self, leg: _Leg, heard: Heard, settled: int) -> None:
        name = leg.track.name
        said = self._speech(leg, heard)
        self._services.partials.drop(self._settings.webhook.url, self.about.call_sid, name)
        event = events.TranscriptLate if self._ended else events.TranscriptFinal
        # Before it is stored: `call.ended` is stored after it, and must have it.
        self._lines.append(events.TranscriptLine(name, heard.text, said["start_ms"], said["end_ms"]))
        await self._publisher.publish(event, events.TranscriptFinalData, watermarks={name: settled}, **said)
        metrics.FINALS.labels(name).inc()

    def _partial(self, leg: _Leg, heard: Heard) -> None:
        webhook = self._settings.webhook
        if "transcript.partial" not in webhook.events or self._ended:
            return
        data = events.SpeechData(**self._fields(), **self._speech(leg, heard))
        event = events.TranscriptPartial(timestamp=events.timestamp(self._services.wall()), data=data)
        self._services.partials.offer(webhook.url, self.about.call_sid, leg.track.name, events.encode(event))

    def _gap(self, name: events.Track, start: int, end: int, reason: str) -> None:
        start_ms, end_ms = milliseconds(start), milliseconds(end)
        metrics.GAP_SECONDS.labels(reason).inc((end_ms - start_ms) / 1000)
        self._logger.warning(
            "gap", late=self._ended, track=name, start_ms=start_ms, end_ms=end_ms, reason=reason
        )
        if self._ended:  # only late transcripts may follow `call.ended`, which said that it was not complete
            return
        self._publisher.post(
            events.TranscriptGap,
            events.TranscriptGapData,
            track=name,
            start_ms=start_ms,
            end_ms=end_ms,
            reason=reason,
        )

    def _speech(self, leg: _Leg, heard: Heard) -> dict[str, Any]:
        """The fields of a final or partial, on the call's clock."""
        ms = leg.track.ms
        return {
            "track": leg.track.name,
            "text": heard.text,
            "start_ms": ms(heard.start),
            "end_ms": ms(heard.end),
            "language": heard.language or self._settings.whisper.language,
            "log_prob": heard.log_prob,
            "words": [events.Word(w.word, ms(w.start), ms(w.end), w.probability) for w in heard.words],
            "suspect": list(heard.suspect),
            "recovered": heard.start < leg.session.resent_until,
        }

    def _fields(self) -> dict[str, Any]:
        """What every event of this call says about it."""
        about = self.about
        return {
            "call_sid": about.call_sid,
            "account_sid": about.account_sid,
            "stream_sid": self.stream_sid,
            "from_": about.from_,
            "to": about.to,
            "direction": about.direction,
            "parameters": dict(about.parameters),
        }


def _succeeded(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
