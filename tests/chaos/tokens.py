"""A stream token is replayed many times at once, at one bridge and at two with one store: one stream is admitted."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from bridge.local.twilio.account import new_sid
from bridge.local.twilio.address import Address
from bridge.local.twilio.message import CONNECTED, Writer
from bridge.local.twilio.twiml import Stream
from bridge.local.twilio.webhook import Webhooks, voice_form
from tests.chaos.cluster import Cluster
from tests.chaos.scenario import Lacking
from tests.doubles import postgres
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL

ANSWER_S: Final = 20.0
"""Within so long every stream is admitted or refused."""

CALM_S: Final = 1.0
"""So long after the first event nothing more comes."""

REFUSED: Final = 1008


@dataclass(slots=True)
class Figures:
    """What happened."""

    bridges: int
    streams: int = 0
    admitted: int = 0

    def __str__(self) -> str:
        return f"{self.admitted} of {self.streams} streams with one token admitted by {self.bridges} bridges"


async def run(directory: Path, *, streams: int = 50) -> str:
    """Replay a token at one bridge with SQLite, and at two with PostgreSQL."""
    if not postgres.installed():
        raise Lacking(postgres.MISSING)
    figures = []
    for names in ("a", "ab"):
        place = directory / names
        place.mkdir()
        figures.append(await replay(place, names, streams))
    return "; ".join(map(str, figures))


async def replay(directory: Path, names: str, streams: int) -> Figures:
    """Open so many streams at once with one token, in turn at each bridge."""
    figures = Figures(len(names), streams)
    async with Cluster(directory, *names, postgres=len(names) > 1) as cluster:
        await cluster.start(*names)
        call_sid, stream = await _streamed(cluster)
        ports = list(cluster.ports.values())
        together = asyncio.Barrier(streams)
        opened = [
            asyncio.create_task(_close_code(ports[n % len(ports)], call_sid, stream, together))
            for n in range(streams)
        ]
        try:
            await cluster.receiver.wait_for_type("call.started", ANSWER_S, call_sid=call_sid)
            closed, open_ = await asyncio.wait(opened, timeout=CALM_S)
            while len(open_) > 1:
                more, open_ = await asyncio.wait(open_, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
                assert more, f"{len(open_)} of {streams} streams are open"
                closed |= more
        finally:
            for task in opened:
                task.cancel()
            codes = await asyncio.gather(*opened, return_exceptions=True)
        figures.admitted = len(open_)
        told = {task.result() for task in closed}
        assert told == {REFUSED}, f"streams were closed with {told}: {codes}"
    assert figures.admitted == 1, str(figures)
    return figures


async def _streamed(cluster: Cluster) -> tuple[str, Stream]:
    """A call whose TwiML was fetched: its identifier, and the stream that it may have."""
    call_sid = new_sid("CA")
    url = f"{PUBLIC_URL}/twilio/voice"
    async with aiohttp.ClientSession() as session:
        webhooks = Webhooks(session, ACCOUNT, Address(PUBLIC_URL, cluster.url))
        target = webhooks.reach(url)
        assert target is not None
        form = voice_form(ACCOUNT.sid, call_sid, "ringing", "+15550100", "+15550199")
        verbs = await webhooks.document(url, target, "POST", form)
    (stream,) = (verb for verb in verbs if isinstance(verb, Stream))
    return call_sid, stream


async def _close_code(port: int, call_sid: str, stream: Stream, together: asyncio.Barrier) -> int | None:
    """Open a stream with this token together with the others; ends when the bridge closes it, with its code."""
    headers = {"X-Twilio-Signature": ACCOUNT.signature(stream.url)}
    writer = Writer(ACCOUNT.sid, call_sid, new_sid("MZ"))
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"ws://127.0.0.1:{port}/twilio/media", headers=headers) as socket,
    ):
        await together.wait()
        await socket.send_str(CONNECTED)
        await socket.send_str(writer.start(stream.tracks, stream.parameters))
        await socket.send_str(writer.media("inbound", 20, b"\xff" * 160))
        await socket.receive()
        return socket.close_code
