"""One simulated call: what Twilio does between the ringing and the hang-up."""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import aiohttp

from bridge.local.twilio.account import Account, new_sid
from bridge.local.twilio.address import Address
from bridge.local.twilio.message import Writer
from bridge.local.twilio.report import Callback, CallReport, StreamReport
from bridge.local.twilio.script import FRAME_BYTES, FRAME_MS, Beat, Script
from bridge.local.twilio.stream import MediaStream
from bridge.local.twilio.twiml import HangUp, Hold, Pause, Redirect, Stream, Track, Verb
from bridge.local.twilio.webhook import CallFailedError, Webhooks, stream_form, voice_form

HOPS: Final = 10
"""Documents that one call may fetch; a `<Redirect>` may lead in a circle."""


class SimulatedCall:
    """A call from `caller` to `called`, as Twilio would bring it to a bridge.

    `voice_url` is where the bridge answers; `public_url` what it calls itself (None: the same origin).
    `audio` is 8 kHz mu-law for each track; where the two differ in length the shorter one ends in
    silence. Raises UsageError for URLs that cannot be used.
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
    ) -> None:
        self._account = account
        self._address = Address.of(voice_url, public_url)
        self._voice_url = voice_url
        self._audio = audio
        self._script = script or Script()
        self._numbers = caller, called
        self._frames = -(-max(map(len, audio.values()), default=0) // FRAME_BYTES)
        if self._script.hangup_ms is not None:
            self._frames = min(self._frames, -(-self._script.hangup_ms // FRAME_MS))
        self._over = asyncio.Event()
        self._streams: set[asyncio.Task[None]] = set()
        self._begun: float | None = None
        self._redirects: asyncio.Queue[Redirect] = asyncio.Queue()
        self._webhooks: Webhooks | None = None
        self.report = CallReport(new_sid("CA"))
        """Fills while the call runs."""
        self.status = "queued"
        """As Twilio's REST API has it."""
        self.ended_at: float | None = None
        """Wall time (`time.time()`) of the hang-up."""

    @property
    def duration_ms(self) -> int:
        """How long the caller stays on the line, on the call's clock."""
        return self._frames * FRAME_MS

    @property
    def position_ms(self) -> int:
        """How much of the call has been sent."""
        return len(self.report.sent) * FRAME_MS

    async def run(self) -> CallReport:
        """Make the call. What goes wrong is in the report's `problem`; nothing is raised for it."""
        async with aiohttp.ClientSession() as session:
            self._webhooks = webhooks = Webhooks(session, self._account, self._address)
            self.status = "ringing"
            try:
                await self._flow(webhooks)
            except CallFailedError as failed:
                self._problem(str(failed))
            finally:
                if self._streams and not self._over.is_set():
                    self._problem(
                        f"the call flow ended at {self.position_ms / 1000:.1f} s, before the caller had finished."
                    )
                self._over.set()
                self.status, self.ended_at = "completed", time.time()
                await asyncio.gather(*self._streams)
                self.report.voice_status = webhooks.first_status
        if not self.report.streams:
            self._problem("the bridge answered the call flow without a stream: nothing was transcribed.")
        return self.report

    def redirect(self, url: str = "", method: str = "POST") -> None:
        """Leave what the call is doing, and go on with this document: what REST's `calls(sid).update(url=...)` does.

        Without a URL it is the voice URL. Streams of a `<Start>` go on.
        """
        self._redirects.put_nowait(Redirect(url or self._address.signed(self._voice_url), method))

    def hang_up(self) -> None:
        """End the call now: what `update(status="completed")` does."""
        self._over.set()

    def start_stream(self, stream: Stream) -> StreamReport:
        """Start a stream beside what the call is doing: what REST's `streams.create` does."""
        if self._webhooks is None or self._over.is_set():
            raise CallFailedError("21220: the call is not in progress.")
        report = self._report_on(stream)
        self._streams.add(asyncio.create_task(self._play(self._webhooks, stream, report)))
        return report

    async def _flow(self, webhooks: Webhooks) -> None:
        """Fetch documents and perform them until nothing follows."""
        url, method = self._address.signed(self._voice_url), "POST"
        hops = 0
        while hops < HOPS:
            target = webhooks.reach(url)
            if target is None:
                # Somebody else's call flow, which is taken to keep the call up.
                performing = asyncio.create_task(self._stay_there())
            else:
                form = voice_form(self._account.sid, self.report.call_sid, self.status, *self._numbers)
                verbs = await webhooks.document(url, target, method, form)
                self.status = "in-progress"
                performing = asyncio.create_task(self._perform(webhooks, verbs))
            following, redirected = await self._redirected(performing)
            if following is None:
                return
            url, method = following.url, following.method
            hops = 0 if redirected else hops + 1
        raise CallFailedError(f"the call flow redirected {HOPS} times; Twilio would not go on.")

    async def _redirected(self, performing: asyncio.Task[Redirect | None]) -> tuple[Redirect | None, bool]:
        """What follows a document: what it says itself, or a redirect from outside that interrupts it."""
        redirect = asyncio.create_task(self._redirects.get())
        try:
            await asyncio.wait({performing, redirect}, return_when=asyncio.FIRST_COMPLETED)
            return (redirect.result(), True) if redirect.done() else (await performing, False)
        finally:
            performing.cancel()
            redirect.cancel()
            await asyncio.gather(performing, redirect, return_exceptions=True)

    async def _stay_there(self) -> Redirect | None:
        await self._stay(None)
        return None

    async def _perform(self, webhooks: Webhooks, verbs: Sequence[Verb]) -> Redirect | None:
        """Go through a document; returns what leads to the next one, None when the call is to end."""
        for verb in verbs:
            match verb:
                case Stream():
                    playing = asyncio.create_task(self._play(webhooks, verb, self._report_on(verb)))
                    self._streams.add(playing)
                    if verb.bidirectional:
                        await asyncio.shield(playing)
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
        """Keep the call up until it is over, at most `seconds`. Without any stream nothing is waited for."""
        if not self._streams:
            return
        try:
            async with asyncio.timeout(None if seconds is None else seconds / self._script.speed):
                await self._over.wait()
        except TimeoutError:
            return

    def _report_on(self, stream: Stream) -> StreamReport:
        report = StreamReport(new_sid("MZ"), stream.url)
        self.report.streams.append(report)
        return report

    async def _play(self, webhooks: Webhooks, stream: Stream, report: StreamReport) -> None:
        """One `<Stream>` and its status callbacks. A later one goes on where the conversation is by then."""
        writer = Writer(
            self._account.sid,
            self.report.call_sid,
            report.stream_sid,
            shared_chunks=self._script.shared_chunks,
        )
        media = MediaStream(
            stream, report, writer, audio=self._audio, script=self._script, sent=self.report.sent
        )
        target = webhooks.reach(stream.url) or stream.url
        signature = self._account.signature(stream.url)
        running = asyncio.create_task(
            media.run(target, signature, self._next_frame, self._frames, self._over)
        )
        try:
            await media.opened.wait()
            if report.status == HTTPStatus.SWITCHING_PROTOCOLS:
                self._begun = self._begun or asyncio.get_running_loop().time()
                await self._tell(webhooks, stream, report, "stream-started")
            await running
        finally:
            running.cancel()
        await self._tell(webhooks, stream, report, "stream-error" if report.error else "stream-stopped")
        self._judge(stream, report)
        if not stream.bidirectional and not self._over.is_set():
            # The caller does not notice that the stream is gone, and hangs up when all is said.
            asyncio.get_running_loop().call_later(self._seconds_left(), self._over.set)

    def _next_frame(self) -> Beat:
        """Where the conversation is: people talk on while a stream is reopened."""
        if self._begun is None:
            return Beat(0, 0.0)
        frame_s = FRAME_MS / 1000 / self._script.speed
        elapsed_s = asyncio.get_running_loop().time() - self._begun
        frame = max(len(self.report.sent), math.ceil(elapsed_s / frame_s))
        return Beat(frame, frame * frame_s - elapsed_s)

    def _seconds_left(self) -> float:
        if self._begun is None:
            return 0.0
        elapsed = asyncio.get_running_loop().time() - self._begun
        return max(0.0, self.duration_ms / 1000 / self._script.speed - elapsed)

    async def _tell(self, webhooks: Webhooks, stream: Stream, report: StreamReport, event: str) -> None:
        if not stream.status_callback or not self._script.callbacks:
            return
        form = stream_form(
            self._account.sid, self.report.call_sid, report.stream_sid, stream.name, event, error=report.error
        )
        status = await webhooks.callback(stream.status_callback, stream.status_callback_method, form)
        self.report.callbacks.append(Callback(event, status))

    def _judge(self, stream: Stream, report: StreamReport) -> None:
        if report.status not in {None, HTTPStatus.SWITCHING_PROTOCOLS}:
            self._problem(f"the bridge refused the media stream {stream.url}: {report.error}.")
        elif report.error:
            self._problem(
                f"the media stream {stream.url} ended at {self.position_ms / 1000:.1f} s: {report.error}."
            )
        elif report.closed_by_bridge and not stream.bidirectional:
            self._problem(
                f"the bridge closed the media stream at {self.position_ms / 1000:.1f} s, before the call was over."
            )

    def _problem(self, sentence: str) -> None:
        """The first thing that went wrong is what the report tells."""
        self.report.problem = self.report.problem or sentence
