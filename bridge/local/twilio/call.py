"""One simulated call: what Twilio does between the ringing and the hang-up."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal

import aiohttp

from bridge.local.twilio.account import Account, new_sid
from bridge.local.twilio.address import Address
from bridge.local.twilio.handler import Documents, Handler
from bridge.local.twilio.report import Callback, CallReport, StreamReport
from bridge.local.twilio.script import FRAME_MS, Script
from bridge.local.twilio.streams import Streams
from bridge.local.twilio.twiml import HangUp, Hold, Pause, Redirect, Stop, Stream, Track, Verb
from bridge.local.twilio.webhook import CallFailedError, Webhooks, voice_form

HOPS: Final = 10
"""Documents that one call may fetch; a `<Redirect>` may lead in a circle."""

Direction = Literal["inbound", "outbound-api"]


class SimulatedCall:
    """A call from `caller` to `called`, as Twilio would bring it to a bridge.

    `voice_url` is where the bridge answers; `public_url` what it calls itself (None: the same origin).
    `audio` is 8 kHz mu-law for each track; where the two differ in length the shorter one ends in
    silence. `handler` is where the first document comes from, if not from the voice URL.
    Raises UsageError for URLs that cannot be used.
    """

    def __init__(
        self,
        account: Account,
        voice_url: str,
        audio: Mapping[Track, bytes],
        script: Script | None = None,
        *,
        public_url: str | None = None,
        caller: str = "+15550100",
        called: str = "+15550199",
        handler: Handler | None = None,
        direction: Direction = "inbound",
    ) -> None:
        self._account = account
        self._address = Address.of(voice_url, public_url)
        self.handler = handler or Handler(self._address.signed(voice_url))
        """Where its documents come from."""
        self._script = script or Script()
        self.caller, self.called, self.direction = caller, called, direction
        self._over = asyncio.Event()
        self._hung_up = "completed"
        self._redirects: asyncio.Queue[Handler] = asyncio.Queue()
        self._webhooks: Webhooks | None = None
        self.report = CallReport(new_sid("CA"))
        """Fills while the call runs."""
        self._streams = Streams(account, self.report, audio, self._script, over=self._over)
        self.status = "queued"
        """As Twilio's REST API has it."""
        self.made_at = time.time()
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        """Wall time (`time.time()`) of the hang-up."""

    @property
    def duration_ms(self) -> int:
        """How long the caller stays on the line, on the call's clock."""
        return self._streams.frames * FRAME_MS

    @property
    def position_ms(self) -> int:
        """How much of the call has been sent."""
        return len(self.report.sent) * FRAME_MS

    async def run(self) -> CallReport:
        """Make the call. What goes wrong is in the report's `problem`; nothing is raised for it."""
        # Each request may meet another bridge behind a load balancer.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(connector=connector) as session:
            self._webhooks = webhooks = Webhooks(
                session, self._account, self._address, timeout_s=self._script.webhook_s
            )
            try:
                if await self._answered(webhooks):
                    await self._flow(webhooks)
            except CallFailedError as failed:
                self.report.note(str(failed))
            finally:
                if self.report.streams and not self._over.is_set():
                    self.report.note(
                        f"the call flow ended at {self.position_ms / 1000:.1f} s, before the caller had finished."
                    )
                self._over.set()
                self.status, self.ended_at = self._hung_up, time.time()
                await self._streams.ended()
                self.report.voice_status = webhooks.first_status
            await self._progress(webhooks, "completed")
        if not self.report.streams:
            self.report.note("the bridge answered the call flow without a stream: nothing was transcribed.")
        return self.report

    def redirect(self, to: Handler | None = None) -> None:
        """Leave what the call is doing, and go on with this document: what REST's `calls(sid).update(url=...)` does.

        Without one it is the first document again. Streams of a `<Start>` go on, and the fallback stays what it was
        unless there is another.
        """
        to, first = to or self.handler, self.handler
        if not to.fallback_url:
            to = replace(to, fallback_url=first.fallback_url, fallback_method=first.fallback_method)
        self._redirects.put_nowait(to)

    def stay(self) -> None:
        """Have the caller stay on the line while nothing is streamed: a stream may be started at any time."""
        self._streams.stays = True

    def hang_up(self, status: str = "completed") -> None:
        """End the call now: what `update(status="completed")` does, or "canceled"."""
        self._hung_up = status
        self._over.set()

    def start_stream(self, stream: Stream) -> StreamReport:
        """Start a stream beside what the call is doing: what REST's `streams.create` does.

        Raises CallFailedError when the call is not in progress, when it has had a stream of that name, or has
        as many as there may be.
        """
        if self._webhooks is None or self.status != "in-progress" or self._over.is_set():
            raise CallFailedError("21220: the call is not in progress.", 21220)
        self._streams.admit(stream)
        return self._streams.start(self._webhooks, stream)[0]

    def stop_stream(self, name: str) -> StreamReport | None:
        """End a stream by its identifier or its name; None if the call never had it.

        Raises CallFailedError when the call is not in progress.
        """
        report = self._streams.stop(name)
        if report is not None and (self.status != "in-progress" or self._over.is_set()):
            raise CallFailedError("21220: the call is not in progress.", 21220)
        return report

    async def _answered(self, webhooks: Webhooks) -> bool:
        """Ring, and tell of it; whether somebody answers."""
        if self.direction == "inbound":
            self.status = "ringing"
            return True
        await self._progress(webhooks, "initiated")
        self.status = "ringing"
        await self._progress(webhooks, "ringing")
        with suppress(TimeoutError):
            async with asyncio.timeout(self._script.rings_s):
                await self._over.wait()
        if self._over.is_set():
            return False
        if self._script.outcome != "answered":
            self.hang_up(self._script.outcome)
            return False
        self.status, self.answered_at = "in-progress", time.time()
        await self._progress(webhooks, "answered")
        return True

    async def _progress(self, webhooks: Webhooks, event: str) -> None:
        if self.handler.status_callback and event in self.handler.events:
            form = self._form() | ({"CallStatus": "initiated"} if event == "initiated" else {})
            status = await webhooks.callback(
                self.handler.status_callback, self.handler.status_callback_method, form
            )
            self.report.callbacks.append(Callback(event, status))

    def _form(self) -> dict[str, str]:
        return voice_form(
            self._account.sid,
            self.report.call_sid,
            self.status,
            self.caller,
            self.called,
            direction=self.direction,
        )

    async def _flow(self, webhooks: Webhooks) -> None:
        """Fetch documents and perform them until nothing follows."""
        documents = Documents(webhooks, self._form, self.report.documents)
        at, hops = self.handler, 0
        while hops < HOPS:
            verbs = await documents.verbs(at)
            self.status, self.answered_at = "in-progress", self.answered_at or time.time()
            performing = asyncio.create_task(self._perform(webhooks, [Hold("")] if verbs is None else verbs))
            following, redirected = await self._redirected(performing)
            if following is None:
                return
            if isinstance(following, Handler):
                at = following
            else:
                at = replace(at, url=following.url, method=following.method, twiml="")
            hops = 0 if redirected else hops + 1
        raise CallFailedError(f"the call flow redirected {HOPS} times; Twilio would not go on.")

    async def _redirected(
        self, performing: asyncio.Task[Redirect | None]
    ) -> tuple[Redirect | Handler | None, bool]:
        """What follows a document: what it says itself, a redirect from outside that interrupts it, or nothing."""
        redirect = asyncio.create_task(self._redirects.get())
        tasks = (performing, redirect, asyncio.create_task(self._over.wait()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if redirect.done():
                return redirect.result(), True
            return (await performing if performing.done() else None), False
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _perform(self, webhooks: Webhooks, verbs: Sequence[Verb]) -> Redirect | None:
        """Go through a document; returns what leads to the next one, None when the call is to end."""
        for verb in verbs:
            match verb:
                case Stream():
                    report, playing = self._streams.start(webhooks, verb)
                    if verb.bidirectional:
                        try:
                            await asyncio.shield(playing)
                        finally:  # a redirect from outside leaves the `<Connect>`
                            self._streams.stop(report.stream_sid)
                case Stop(name):
                    self._streams.stop(name)
                case Pause(seconds):
                    await self._stay(seconds)
                case Hold():
                    await self._stay(None)
                case HangUp():
                    return None
                case Redirect():
                    return verb
            if self._over.is_set():
                return None
        return None

    async def _stay(self, seconds: float | None) -> None:
        """Keep the call up until it is over, at most `seconds`.

        Without any stream nothing is waited for, unless the caller stays.
        """
        if self._streams.silent:
            if not self._streams.talking():
                return
            self._streams.hang_up_in_time()
        try:
            async with asyncio.timeout(None if seconds is None else seconds / self._script.speed):
                await self._over.wait()
        except TimeoutError:
            return
