import asyncio
import json
import ssl
import time

import pytest
from websockets.asyncio.client import connect

from bridge.errors import BridgeError
from bridge.local.load import tag
from bridge.local.load.sink import FINAL_FRAMES, Sink
from bridge.local.load.wire import masked
from tests.doubles.tls_proxy import CERTIFICATE

FRAME = tag.widened(tag.spoken(7))


@pytest.mark.parametrize("tls", [False, True])
async def test_it_notes_when_each_frame_came_and_whose_it_was(tls: bool) -> None:
    server = client = None
    if tls:
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain(CERTIFICATE)
        client = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with Sink(tls=server) as sink:
        url = f"{'wss' if tls else 'ws'}://localhost:{sink.port}/websocket"
        async with connect(url, ssl=client, compression=None) as ws:
            await ws.send('{"whisper_params": {}}')
            before = time.monotonic()
            for _ in range(5):
                await ws.send(FRAME)
            await ws.send(b"not a frame")
            await ws.send('{"type": "end_audio"}')
            said = [json.loads(await ws.recv())["body"]["status"] for _ in range(2)]
            noted = sink.take()
            assert sink.take().came == {}

    assert said == ["acknowledged", "finished"]
    assert noted.open == 1
    (times,) = noted.came.values()
    assert list(noted.came) == [7]
    assert len(times) == 5
    assert before <= times[0] <= times[-1] <= time.monotonic()


@pytest.mark.parametrize("size", [1, 500, 1032, 1033, 5000])
async def test_frames_are_counted_however_their_bytes_come(size: int) -> None:
    payload, mask = FRAME, b"\x01\x02\xfe\xff"
    whole = b"\x82\xfe\x04\x00" + mask + masked(payload, mask)
    stream = 20 * whole if size > 1 else 2 * whole
    async with Sink() as sink:
        reader, writer = await asyncio.open_connection("127.0.0.1", sink.port)
        writer.write(b"GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for at in range(0, len(stream), size):
            writer.write(stream[at : at + size])
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            found = 0
            while found < len(stream) // len(whole):
                await asyncio.sleep(0.001)
                found += len(sink.take().came.get(7, ()))
        writer.close()

    assert found == len(stream) // len(whole)


async def test_finals_are_told_by_the_clock_of_the_audio() -> None:
    async with Sink() as sink, connect(f"ws://127.0.0.1:{sink.port}/", compression=None) as ws:
        for _ in range(2 * FINAL_FRAMES):
            await ws.send(FRAME)
        said = [json.loads(await ws.recv()) for _ in range(2)]
        finals = sink.take().finals

    assert [one["transcript"] for one in said] == list(finals)
    assert all(one["is_final"] for one in said)
    first, second = (one["segments"][0] for one in said)
    assert second["start_time"] == pytest.approx(first["end_time"])


async def test_audio_is_handed_on_where_somebody_listens() -> None:
    heard: list[bytes] = []
    async with Sink(on_audio=heard.append) as sink:
        async with connect(f"ws://127.0.0.1:{sink.port}/", compression=None) as ws:
            await ws.send(FRAME)
            await ws.send(FRAME[::-1])
        assert heard == [FRAME, FRAME[::-1]]


async def test_a_port_that_is_taken_is_told() -> None:
    async with Sink() as sink:
        with pytest.raises(BridgeError, match=f"cannot be a Whisper server at 127.0.0.1:{sink.port}: "):
            async with Sink(sink.port):
                pass
