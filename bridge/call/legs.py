"""The tracks of one call, each with its journal and its session."""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

from bridge import events, log
from bridge.call.journals import Folder
from bridge.call.leg import Gap, Leg, watermark_key
from bridge.call.minutes import Minutes
from bridge.call.services import Services
from bridge.call.track import Track
from bridge.config import NumberSettings
from bridge.whisper.scribe import Listener
from bridge.whisper.session import Session

SETTLE_S: Final = 15.0
"""How often it is noted how far silence is settled: another process would tell it as missing."""


class Legs:
    """Makes a leg when its track is first named; iterating gives those there are.

    `continued`: another process had the call before, whose audio is not here. `start` starts a task of the call's.
    """

    def __init__(
        self,
        folder: Folder,
        settings: NumberSettings,
        services: Services,
        minutes: Minutes,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        *,
        continued: bool,
    ) -> None:
        self.may_transcribe = asyncio.Event()
        """Set when the sessions may begin."""
        self._folder = folder
        self._settings = settings
        self._services = services
        self._minutes = minutes
        self._continued = continued
        self._start = start
        self._settled_at = services.monotonic()
        self._legs: dict[events.Track, Leg] = {}

    def __iter__(self) -> Iterator[Leg]:
        return iter(list(self._legs.values()))

    def of(self, name: events.Track) -> Leg:
        """The leg of a track."""
        if name in self._legs:
            return self._legs[name]
        services, whisper, minutes = self._services, self._settings.whisper, self._minutes
        journal, key = self._folder.journal(name), watermark_key(name, self._folder.id)
        if journal.unopened:  # what comes now has offsets of its own
            key = watermark_key(name, f"{self._folder.id}.{secrets.token_hex(4)}")
        session = Session(
            journal,
            listen=services.ear.listen,
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
            logger=log.get("bridge.whisper.session").bind(call_sid=self._folder.call_sid, track=name),
        )
        track = Track(
            name,
            journal,
            lambda start, end, offset: minutes.gap(leg, Gap(offset, start, end, "not_received")),
            settled=minutes.stored(name) if self._continued else None,
        )
        leg = self._legs[name] = Leg(track, session, key, continued=self._continued)
        leg.task = self._start(self._transcribe(leg))
        return leg

    def take_up(self, tracks: Iterable[events.Track]) -> None:
        """Go on with what an earlier process left, here or elsewhere: the call had these tracks then."""
        for name in self._folder.tracks() or (tracks if self._continued else ()):
            leg = self.of(name)
            for gap in leg.gaps():
                self._minutes.gap(leg, gap)

    def new_stream(self) -> None:
        """Say that another stream brings what comes from now on."""
        for leg in self:
            leg.track.new_stream()

    def idle(self, now: float) -> None:
        """Look after tracks that nothing arrives on. `now` is monotonic, in seconds."""
        for leg in self:
            if leg.track.idle(now):
                leg.session.heard()
        if now - self._settled_at > SETTLE_S:
            self._settled_at = now
            self._settle()

    def missing_until(self, position: int) -> None:
        """Report what never came, up to `position` on the call's clock, where the call ended."""
        for leg in self:
            leg.track.missing_until(position)

    def quiet(self, samples: int) -> bool:
        """Whether nobody has said anything for so long."""
        return all(leg.track.received_until - leg.track.loud_until >= samples for leg in self)

    @property
    def received_until(self) -> int:
        """Where the last received sample lies on the call's clock."""
        return max((leg.track.received_until for leg in self), default=0)

    @property
    def kept_until(self) -> int:
        """The same of what is kept here: what another process has received is not known exactly, and may be less."""
        return max((leg.track.received_until for leg in self if leg.track.journal.end), default=0)

    @property
    def behind_s(self) -> float:
        """Seconds of audio that wait to be sent to Whisper, of the track that has most."""
        return max((leg.behind_s for leg in self), default=0.0)

    @property
    def unopened(self) -> bool:
        """Whether there is audio of an earlier process that cannot be opened now."""
        return any(leg.track.journal.unopened for leg in self)

    def _settle(self) -> None:
        """Have it known how far the tracks are settled, though nobody says anything."""
        for leg in self:
            offset = leg.session.watermark.offset
            if offset > leg.noted:
                self._minutes.settle(leg, offset)

    async def _transcribe(self, leg: Leg) -> None:
        await self.may_transcribe.wait()
        await leg.session.run()
