import asyncio
import base64
import os

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from websockets.frames import Frame, Opcode

from bridge.twilio.socket import Socket

HEAD = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)


def server(read: list[bytes]) -> TestServer:
    async def answer(request: web.Request) -> web.StreamResponse:
        socket = Socket(speed=1)
        response = await socket.open(request)
        while (text := await socket.text()) is not None:
            read.append(text)
        await socket.close()
        return response

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    return TestServer(app)


async def test_what_asks_for_no_websocket_gets_a_sentence() -> None:
    async with server([]) as here, ClientSession() as client, client.get(here.make_url("/")) as answer:
        assert (answer.status, await answer.text()) == (
            400,
            "this is for WebSockets: the request does not ask for one",
        )


async def test_frames_that_come_together_with_the_request_are_read_and_aiohttp_learns_of_the_end() -> None:
    read: list[bytes] = []
    async with server(read) as here:
        reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
        key = base64.b64encode(os.urandom(16))
        first = Frame(Opcode.TEXT, b"one").serialize(mask=True)
        second = Frame(Opcode.TEXT, b"two").serialize(mask=True)
        writer.write(HEAD + b"Sec-WebSocket-Key: " + key + b"\r\n\r\n" + first + second[:3])
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        runner = here.runner
        assert runner is not None
        assert runner.server is not None
        assert len(runner.server.connections) == 1
        writer.write(second[3:] + Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True))
        assert await reader.read() == Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=False)
        writer.close()
        while runner.server.connections:
            await asyncio.sleep(0.01)
    assert read == [b"one", b"two"]


async def test_a_client_that_does_not_wait_for_the_answer_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.set()
        while request.transport is not None:
            await asyncio.sleep(0.01)
        socket = Socket(speed=1)
        response = await socket.open(request)
        assert await socket.text() is None
        await socket.close()
        assert socket._beat is None, "nothing is left that would keep it"
        ended.set()
        return response

    app = web.Application()
    app.add_routes([web.get("/", answer)])
    runner = web.AppRunner(app)  # a test server would cancel the handler
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(HEAD + b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n\r\n")
    async with asyncio.timeout(5):
        await asked.wait()
        writer.transport.abort()
        await ended.wait()
    await runner.cleanup()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
