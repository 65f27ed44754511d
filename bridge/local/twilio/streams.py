"""The streams of one simulated call, one after the other or side by side."""

import asyncio
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from bridge.local.twilio.account import Account, new_sid
from bridge.local.twilio.message import Writer
from bridge.local.twilio.report import Callback, CallReport, StreamReport
from bridge.local.twilio.script import FRAME_BYTES, FRAME_MS, Beat, Script
from bridge.local.twilio.stream import MediaStream
from bridge.local.twilio.twiml import Stream, Track
from bridge.local.twilio.webhook import CallFailedError, Webhooks, stream_form

LIMIT: Final = 4
"""Tracks of a call that may be streamed at a time by `<Start>` and REST; `both_tracks` are two of them."""


class Streams:
    """What people say on a call, and the streams that carry it. `over` is set when all has been said."""

    def __init__(
        self,
        account: Account,
        report: CallReport,
        audio: Mapping[Track, bytes],
        script: Script,
        *,
        over: asyncio.Event,
    ) -> None:
        self._account = account
        self._report = report
        self._audio = audio
        self._script = script
        self._over = over
        self._begun: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._live: dict[str, MediaStream] = {}
        self.frames = -(-max(map(len, audio.values()), default=0) // FRAME_BYTES)
        """How long people talk, in frames of 20 ms."""
        if script.hangup_ms is not None:
            self.frames = min(self.frames, -(-script.hangup_ms // FRAME_MS))
        self.stays = False
        """Whether people talk although nothing was streamed yet."""

    @property
    def silent(self) -> bool:
        """Whether nothing is streamed now."""
        return not self._live

    def talking(self) -> bool:
        """Whether people talk: since there was a stream, or from now on if they stay without one."""
        if self._begun is None and self.stays:
            self._begun = asyncio.get_running_loop().time()
        return self._begun is not None

    def hang_up_in_time(self) -> None:
        """When all is said the call is over, also without a stream that says so."""
        left_s = 0.0
        if self._begun is not None:
            elapsed_s = asyncio.get_running_loop().time() - self._begun
            left_s = max(0.0, self.frames * FRAME_MS / 1000 / self._script.speed - elapsed_s)
        asyncio.get_running_loop().call_later(left_s, self._over.set)

    def admit(self, stream: Stream) -> None:
        """Raise CallFailedError where REST would not start a stream: its name was had, or there are too many."""
        if any(stream.name and stream.name == each.name for each in self._report.streams):
            raise CallFailedError("the call has had a stream of that name.", 20001)
        tracks = sum(len(each.stream.tracks) for each in self._live.values() if not each.stream.bidirectional)
        if tracks + len(stream.tracks) > LIMIT:
            raise CallFailedError(f"more than {LIMIT} tracks of the call would be streamed.", 20001)

    def start(self, webhooks: Webhooks, stream: Stream) -> tuple[StreamReport, asyncio.Task[None]]:
        """Start a stream; the task ends with it. A later one goes on where the conversation is by then."""
        report = StreamReport(new_sid("MZ"), stream.url, name=stream.name)
        self._report.streams.append(report)
        writer = Writer(
            self._account.sid,
            self._report.call_sid,
            report.stream_sid,
            shared_chunks=self._script.shared_chunks,
        )
        media = MediaStream(
            stream, report, writer, audio=self._audio, script=self._script, sent=self._report.sent
        )
        self._live[report.stream_sid] = media
        task = asyncio.create_task(self._play(webhooks, media, report))
        self._tasks.add(task)
        return report, task

    def stop(self, name: str) -> StreamReport | None:
        """End a stream by its identifier or its name; None if the call never had it."""
        for report in reversed(self._report.streams):
            if name in {report.stream_sid, report.name}:
                if media := self._live.get(report.stream_sid):
                    media.stopped.set()
                return report
        return None

    async def ended(self) -> None:
        """Wait for all of them."""
        await asyncio.gather(*self._tasks)

    async def _play(self, webhooks: Webhooks, media: MediaStream, report: StreamReport) -> None:
        """One stream and its status callbacks."""
        stream = media.stream
        target = webhooks.reach(stream.url) or stream.url
        signature = self._account.signature(stream.url)
        running = asyncio.create_task(media.run(target, signature, self._next_frame, self.frames, self._over))
        try:
            await media.opened.wait()
            if report.status == HTTPStatus.SWITCHING_PROTOCOLS:
                self._begun = self._begun or asyncio.get_running_loop().time()
                await self._tell(webhooks, stream, report, "stream-started")
            await running
        finally:
            running.cancel()
            del self._live[report.stream_sid]
        await self._tell(webhooks, stream, report, "stream-error" if report.error else "stream-stopped")
        self._judge(stream, report)
        if not stream.bidirectional:
            # The caller does not notice that the stream is gone.
            self.talking()
            self.hang_up_in_time()

    def _next_frame(self) -> Beat:
        """Where the conversation is: people talk on while a stream is reopened."""
        if self._begun is None:
            return Beat(0, 0.0)
        frame_s = FRAME_MS / 1000 / self._script.speed
        elapsed_s = asyncio.get_running_loop().time() - self._begun
        frame = max(len(self._report.sent), math.ceil(elapsed_s / frame_s))
        return Beat(frame, frame * frame_s - elapsed_s)

    async def _tell(self, webhooks: Webhooks, stream: Stream, report: StreamReport, event: str) -> None:
        if not stream.status_callback or not self._script.callbacks:
            return
        form = stream_form(
            self._account.sid,
            self._report.call_sid,
            report.stream_sid,
            stream.name,
            event,
            error=report.error,
        )
        status = await webhooks.callback(stream.status_callback, stream.status_callback_method, form)
        self._report.callbacks.append(Callback(event, status))

    def _judge(self, stream: Stream, report: StreamReport) -> None:
        at_s = len(self._report.sent) * FRAME_MS / 1000
        if report.status not in {None, HTTPStatus.SWITCHING_PROTOCOLS}:
            self._report.note(f"the bridge refused the media stream {stream.url}: {report.error}.")
        elif report.error:
            self._report.note(f"the media stream {stream.url} ended at {at_s:.1f} s: {report.error}.")
        elif report.closed_by_bridge and not stream.bidirectional:
            self._report.note(
                f"the bridge closed the media stream at {at_s:.1f} s, before the call was over."
            )
