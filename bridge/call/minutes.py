"""The minutes of a call: everything that is told of it, in the order in which it was said, and each once."""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from bridge import events, log, metrics
from bridge.call.clock import milliseconds
from bridge.call.leg import Gap, Leg
from bridge.call.memo import Memo
from bridge.call.publisher import Publisher, Taken, take_over
from bridge.call.services import Services
from bridge.config import NumberSettings
from bridge.outbox.lease import Fenced
from bridge.outbox.outbox import Line
from bridge.transcript.heard import Heard
from bridge.transcript.trust import Trust

_logger: Final = log.get(__name__)


class Minutes:
    """Makes events of what the legs bring. `run` stores them, and is the call's to start and to end.

    `taken` is what an earlier process told; without it the call is taken over from nobody, as `owner`.
    """

    def __init__(
        self,
        settings: NumberSettings,
        services: Services,
        memo: Callable[[], Memo],
        owner: str,
        taken: Taken | None = None,
    ) -> None:
        self.over = taken is not None and taken.lease.ended
        """`call.ended` is told: only late transcripts may follow."""
        self.lines: list[events.TranscriptLine] = []
        """Every final of the call, in the order in which they came."""
        self._settings = settings
        self._services = services
        self._memo = memo
        self._owner = owner
        self._taken = taken
        self._stored = taken.lease.watermarks if taken else {}
        self._publisher = Publisher(
            services.outbox,
            services.delivery.publish,
            call_sid=memo().about.call_sid,
            endpoint=settings.webhook.url,
            subscribed=frozenset(settings.webhook.events),
            take_over=self._take_over,
            about=self._about,
            clock=services.wall,
        )
        self._trust = Trust(settings)
        self._logger = _logger.bind(call_sid=memo().about.call_sid)
        self._keep(taken)

    async def run(self) -> None:
        """Store what is told, for ever. Raises `Fenced` and `Erased`."""
        await self._publisher.run()

    @property
    def owned(self) -> bool:
        """Whether the outbox has the call as this process's, and open."""
        return self._taken is not None and not self.over

    def stored(self, key: str) -> int:
        """A watermark as it was when the call was taken over."""
        return self._stored.get(key, 0)

    def last_text(self, track: events.Track) -> str:
        """The latest final of a track; empty if there was none."""
        return next((line.text for line in reversed(self.lines) if line.track == track), "")

    def started(self, tracks: list[events.Track]) -> None:
        """The call is streamed; told by its first process only."""
        self._publisher.post(events.CallStarted, events.CallStartedData, tracks=tracks)

    def note(self) -> None:
        """Have whoever takes the call over know what is known of it now."""
        self._publisher.note(self._memo().encode())

    def settle(self, leg: Leg, offset: int) -> None:
        """Say that the audio before an offset is settled, though there is nothing to tell of it."""
        self._publisher.move(leg.settled(offset))

    def digit(self, digit: str) -> None:
        """The caller pressed a key."""
        self._publisher.post(events.CallDtmf, events.CallDtmfData, digit=digit)

    async def final(self, leg: Leg, heard: Heard, settled: int) -> None:
        """An utterance; returns when it is stored, together with how far its track is settled."""
        name = leg.track.name
        heard = self._trust.final(heard, leg.session.loudness)
        said = self._speech(leg, heard)
        self.hush(name)
        if unwanted := self._trust.against(heard):
            metrics.FINALS_DROPPED.labels(unwanted).inc()
            self._logger.info("final_dropped", track=name, start_ms=said["start_ms"], reason=unwanted)
            await self._publisher.settle(leg.settled(settled))
            return
        event = events.TranscriptLate if self.over else events.TranscriptFinal
        line = Line(0, name, said["start_ms"], said["end_ms"], heard.text)
        # Before it is stored: `call.ended` is stored after it, and must have it.
        self.lines.append(_transcript_line(line))
        await self._publisher.publish(
            event, events.TranscriptFinalData, watermarks=leg.settled(settled), line=line, **said
        )
        metrics.FINALS.labels(name).inc()

    def partial(self, leg: Leg, heard: Heard) -> None:
        """An utterance so far."""
        webhook = self._settings.webhook
        if "transcript.partial" not in webhook.events or self.over:
            return
        data = events.SpeechData(**self._about(), **self._speech(leg, self._trust.partial(heard)))
        event = events.TranscriptPartial(timestamp=events.timestamp(self._services.wall()), data=data)
        self._services.partials.offer(webhook.url, data.call_sid, leg.track.name, events.encode(event))

    def hush(self, name: events.Track) -> None:
        """Send no partial of the track that waits."""
        self._services.partials.drop(self._settings.webhook.url, self._memo().about.call_sid, name)

    def gap(self, leg: Leg, gap: Gap) -> None:
        """Audio is missing. The same transaction stores how far gaps were told, or that the audio is settled."""
        key = leg.key if gap.settles else leg.told_key(gap.reason)
        if gap.offset <= self._stored.get(key, -1):
            return  # told by an earlier process
        name, start_ms, end_ms = leg.track.name, milliseconds(gap.start), milliseconds(gap.end)
        metrics.GAP_SECONDS.labels(gap.reason).inc((end_ms - start_ms) / 1000)
        self._logger.warning(
            "gap", late=self.over, track=name, start_ms=start_ms, end_ms=end_ms, reason=gap.reason
        )
        if self.over:  # `call.ended` said that it was not complete
            return
        journal, watermarks = leg.track.journal, {key: gap.offset}
        if gap.settles or gap.offset <= leg.session.watermark.offset:  # nothing before it is still to come
            watermarks |= leg.settled(gap.offset) | {key: gap.offset, name: gap.end}
        journal.untold += 1

        def told(_: object) -> None:
            journal.untold -= 1

        stored = self._publisher.post(
            events.TranscriptGap,
            events.TranscriptGapData,
            watermarks=watermarks,
            track=name,
            start_ms=start_ms,
            end_ms=end_ms,
            reason=gap.reason,
        )
        stored.add_done_callback(told)

    async def ended(self, *, reason: str, duration_ms: int, complete: bool) -> None:
        """The call is over; returns when that is stored. Once told it is not told again."""
        if self.over:
            return
        self.over = True
        await self._publisher.publish(
            events.CallEnded,
            events.CallEndedData,
            reason=reason,
            duration_ms=duration_ms,
            complete=complete,
            transcript=sorted(self.lines, key=lambda line: line.start_ms),
        )
        metrics.CALLS.labels(reason).inc()
        self._logger.info(
            "call_ended", reason=reason, duration_ms=duration_ms, complete=complete, finals=len(self.lines)
        )

    async def release(self) -> None:
        """All is told: whoever has other audio of the call may tell what that says. Raises `OutboxDown`."""
        if self._taken is not None:
            await self._services.outbox.let_go(self._taken.lease)

    async def let_go(self, positions: Mapping[str, int]) -> None:
        """Give the call up without an end, once all is stored; tracks are settled up to these positions.

        Raises `OutboxDown`, `Fenced` and `Erased`.
        """
        await self._publisher.settle(positions)  # waits until the call is taken over, too
        await self._services.outbox.let_go((await self._take_over()).lease)

    async def _take_over(self) -> Taken:
        if self._taken is None:
            memo = self._memo()
            self._taken = await take_over(
                self._services.outbox,
                memo.about.call_sid,
                self._owner,
                memo.encode(),
                node=self._services.node,
            )
            if self._taken.lease.ended:
                raise Fenced(f"{memo.about.call_sid} has its call.ended already")
            self._keep(self._taken)
        return self._taken

    def _keep(self, taken: Taken | None) -> None:
        """What was said before belongs into the transcript of `call.ended`."""
        if taken is not None:
            self.lines += [_transcript_line(line) for line in taken.lines]

    def _speech(self, leg: Leg, heard: Heard) -> dict[str, Any]:
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

    def _about(self) -> dict[str, Any]:
        """What every event of this call says about it."""
        memo = self._memo()
        about = memo.about
        return {
            "call_sid": about.call_sid,
            "account_sid": about.account_sid,
            "stream_sid": memo.stream_sid,
            "from_": about.from_,
            "to": about.to,
            "direction": about.direction,
            "parameters": dict(about.parameters),
        }


def _transcript_line(line: Line) -> events.TranscriptLine:
    return events.TranscriptLine(cast("events.Track", line.track), line.text, line.start_ms, line.end_ms)
