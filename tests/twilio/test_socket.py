import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from websockets.frames import Frame, Opcode

from bridge.local.twilio.script import Burst, Hole, Script
from bridge.twilio import socket as module
from bridge.twilio.socket import Socket
from tests.doubles.bridge import Setup
from tests.doubles.numbered import speech
from tests.doubles.switchboard import (
    CA,
    FORM,
    MZ,
    frame,
    house,
    media,
    metric,
    raw,
    start,
    token_of,
    until,
    upgrade,
)


async def test_an_oversized_message_ends_that_stream_alone(tmp_path: Path) -> None:
    async with house(tmp_path) as (setup, client):
        call = setup.call({"inbound": speech(range(8))}, Script(speed=4))
        other = asyncio.create_task(call.run())
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            await socket.send_str(" " * 65_536)  # the largest that is read
            await socket.send_str("x" * 65_537)
            closed = await socket.receive(timeout=5)
            assert closed.data == 1009
        report = await other
        assert report.ok, report.problem
        events = await setup.ended(report.call_sid)
        assert [w for e in events if e.type == "transcript.final" for w in e.data["text"].split()] == [
            f"w{n}" for n in range(8)
        ]
        ended = (await setup.ended(CA))[-1]
        assert ended.data["reason"] == "disconnected"


async def flood(setup: Setup, client: aiohttp.ClientSession, text: str, count: int) -> tuple[int, str]:
    """Send a message over and over on a stream; the code and the reason that its socket was closed with."""
    async with upgrade(setup, client) as socket:
        await socket.send_str(start(await token_of(setup, client)))
        with contextlib.suppress(ConnectionError):
            for _ in range(count):
                await socket.send_str(text)
        closed = await socket.receive(timeout=5)
        return closed.data, closed.extra


async def test_more_messages_than_any_call_has_end_that_stream_alone(tmp_path: Path) -> None:
    async with house(tmp_path, twilio={"max_speed": 1}) as (setup, client):
        other = asyncio.create_task(setup.call({"inbound": speech(range(8))}).run())
        before = metric("bridge_refusals_total", why="message_rate")
        code, reason = await flood(setup, client, media(MZ, 20), 5000)
        assert (code, reason[:9]) == (1008, "more than")
        assert metric("bridge_refusals_total", why="message_rate") == before + 1
        report = await other
        assert report.ok, report.problem
        events = await setup.ended(report.call_sid)
        assert [w for e in events if e.type == "transcript.final" for w in e.data["text"].split()] == [
            f"w{n}" for n in range(8)
        ]


async def test_audio_that_cannot_have_been_spoken_yet(tmp_path: Path) -> None:
    async with house(tmp_path, twilio={"max_speed": 1}) as (setup, client):
        before = metric("bridge_audio_anomalies_total", kind="ahead")
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            for timestamp in (0, 20, 40_000, 40_020):
                await socket.send_str(media(MZ, timestamp))
            await until(lambda: metric("bridge_audio_anomalies_total", kind="ahead") == before + 2)
            await socket.send_str('{"event":"stop"}')
        events = await setup.ended(CA)
        assert events[-1].data["duration_ms"] == 80, "it is kept, right after the last"
        assert [e.type for e in events if e.type == "transcript.gap"] == []
        other = FORM | {"CallSid": "CA" + "5" * 32}
        async with upgrade(setup, client) as socket:
            token = await token_of(setup, client, other)
            await socket.send_str(start(token, callSid=other["CallSid"]))
            await socket.send_str(media(MZ, 0))
            await socket.send_str(media(MZ, 3_600_000))
            closed = await socket.receive(timeout=5)
            assert (closed.data, "ahead of time" in closed.extra) == (1008, True)


async def test_a_burst_after_a_hole_and_a_hold_are_no_offence(tmp_path: Path) -> None:
    """233 ms in which nothing came, then 12 messages at once; and timestamps that jump because nobody sent any."""
    script = Script(bursts=(Burst(500, 233),), holes=(Hole(1000, 800),))
    async with house(tmp_path, twilio={"max_speed": 1}) as (setup, _):
        report = await setup.call({"inbound": speech(range(6)), "outbound": speech(range(6))}, script).run()
        assert report.ok, report.problem
        assert (await setup.ended(report.call_sid))[-1].data["reason"] == "hangup"


async def test_a_peer_that_asks_and_never_reads_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.2)
    async with house(tmp_path) as (setup, client):
        before = metric("bridge_refusals_total", why="not_reading")
        token = await token_of(setup, client)
        async with raw(setup) as (reader, writer):
            writer.write(frame(1, start(token).encode()))
            await setup.receiver.wait_for(lambda r: r.type == "call.started")
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport of asyncio has it
            ping = frame(9, b"x" * 125)
            with contextlib.suppress(ConnectionError):
                while metric("bridge_refusals_total", why="not_reading") == before:
                    writer.write(ping * 500)
                    await asyncio.wait_for(writer.drain(), 5)
            assert not reader.at_eof()
        await setup.ended(CA)


async def test_what_is_kept_meanwhile_is_bounded_by_its_size_and_nothing_of_it_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "EARLY", 1_000_000)
    sent = [f"{number:050000}" for number in range(80)]
    kept, read = 0, []

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal kept
        socket = Socket(speed=1)
        response = await socket.open(request)
        await until(lambda: len(socket._kept) >= 20)
        for _ in range(100):
            await asyncio.sleep(0)
        kept = len(socket._kept)
        while (text := await socket.text()) is not None:
            read.append(text.decode())
        await socket.close()
        return response

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as client,
        client.ws_connect(server.make_url("/")) as socket,
    ):
        for text in sent:
            await socket.send_str(text)
    assert 20 <= kept <= 26, "and what one read brings more, 256 KiB at most"
    assert read == sent


async def test_what_comes_while_a_stream_is_admitted_is_read_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EARLY", 30)
    async with house(tmp_path) as (setup, client):
        known, go_on = setup.bridge.twilio.streams._inherit, asyncio.Event()

        async def inherit(*arguments: Any, **options: Any) -> bool:
            await go_on.wait()
            return await known(*arguments, **options)

        monkeypatch.setattr(setup.bridge.twilio.streams, "_inherit", inherit)
        async with upgrade(setup, client) as socket:
            await socket.send_str(start(await token_of(setup, client)))
            for number in range(50):  # more than are kept: the rest waits in the socket
                await socket.send_str(media(MZ, 20 * number))
            await socket.send_str('{"event":"stop"}')
            await asyncio.sleep(0.1)
            assert len(setup.bridge.calls) == 0
            go_on.set()
            ended = (await setup.ended(CA))[-1]
    assert (ended.data["reason"], ended.data["duration_ms"]) == ("hangup", 1000)


class Wire(asyncio.Transport):
    """What a socket writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.aborted

    def is_reading(self) -> bool:
        return True

    def close(self) -> None:
        self.aborted = True

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
async def wired() -> AsyncIterator[tuple[Socket, Wire]]:
    socket, wire = Socket(speed=1e6), Wire()
    socket.connection_made(wire)
    yield socket, wire
    socket.connection_lost(None)


TEXTS = ["short", "x" * 200, "y" * 126, "z" * 65_535, "gr\u00fcn" * 40, ""]


def sent() -> bytes:
    whole = [Frame(Opcode.TEXT, text.encode()).serialize(mask=True) for text in TEXTS]
    ping = Frame(Opcode.PING, b"?").serialize(mask=True)
    cut = [Frame(Opcode.TEXT, b"fr", fin=False), Frame(Opcode.PING, b"!"), Frame(Opcode.CONT, b"agments")]
    return b"".join([*whole, ping, *(frame.serialize(mask=True) for frame in cut), whole[1]])


@pytest.mark.parametrize("seed", range(40))
async def test_messages_are_the_same_however_their_bytes_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    socket, wire = Socket(speed=1e6), Wire()
    socket.connection_made(wire)
    stream, at, read = sent(), 0, []
    while at < len(stream):
        size = chance.choice([1, 2, 3, 5, 8, 13, 200, 4000, 70_000])
        socket.data_received(stream[at : at + size])
        at += size
    while socket._kept:
        read.append((await socket.text() or b"").decode())
    assert read == [*TEXTS, "fragments", TEXTS[1]]
    assert wire.written == b"".join(Frame(Opcode.PONG, said).serialize(mask=False) for said in (b"?", b"!"))
    socket.connection_lost(None)


async def test_fragments_without_a_byte_cost_no_memory(wired: tuple[Socket, Wire]) -> None:
    socket, _ = wired
    socket.data_received(Frame(Opcode.TEXT, b"a", fin=False).serialize(mask=True))
    socket.data_received(Frame(Opcode.CONT, b"", fin=False).serialize(mask=True) * 10_000)
    socket.data_received(Frame(Opcode.CONT, b"b").serialize(mask=True))
    assert await socket.text() == b"ab"


async def test_a_reason_that_is_too_long_is_cut(wired: tuple[Socket, Wire]) -> None:
    socket, wire = wired
    closing = asyncio.create_task(socket.close(1008, "because \u00fc" * 30))
    await asyncio.sleep(0)
    socket.connection_lost(None)
    await closing
    assert (wire.written[1], wire.written[2:4]) == (125, (1008).to_bytes(2))
    wire.written[4:].decode()


async def test_a_peer_that_says_no_more_is_not_waited_for(
    wired: tuple[Socket, Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_S", 0.01)
    socket, wire = wired
    reading = asyncio.create_task(socket.each(lambda _: True))
    await asyncio.sleep(0)
    socket.eof_received()
    await reading
    await socket.close()
    assert wire.aborted
