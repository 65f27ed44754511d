import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from bridge import loop
from bridge.local.twilio import frame
from bridge.local.twilio.socket import MediaSocket

LONG = "x" * 60_000


@asynccontextmanager
async def opened(
    take: Callable[[web.WebSocketResponse], Awaitable[None]],
) -> AsyncIterator[MediaSocket]:
    """A socket to a server that reads as `take` does."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        served = web.WebSocketResponse()
        await served.prepare(request)
        await take(served)
        return served

    app = web.Application()
    app.add_routes([web.get("/", serve)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(ws_response_class=MediaSocket) as session:
            ws = await session.ws_connect(f"http://127.0.0.1:{runner.addresses[0][1]}/")
            assert isinstance(ws, MediaSocket)
            yield ws
            await ws.close()
    finally:
        await runner.cleanup()


async def listen(served: web.WebSocketResponse, heard: list[str]) -> None:
    async for message in served:
        heard += [message.data]


@pytest.mark.parametrize("uvloop", [False, True])
def test_what_a_slow_bridge_does_not_read_waits_and_comes_in_order(uvloop: bool) -> None:
    texts = [f"{n} {LONG}" for n in range(400)]  # 24 MB: more than the kernel takes

    async def scenario() -> tuple[bool, list[str]]:
        heard: list[str] = []
        reads = asyncio.Event()

        async def take(served: web.WebSocketResponse) -> None:
            await reads.wait()
            await listen(served, heard)

        async with opened(take) as ws:
            for text in texts:
                ws.write(frame.text(text))
            clogged = ws.clogged
            reads.set()
            await ws.send_str("last")
            async with asyncio.timeout(10):
                while len(heard) <= len(texts):
                    await asyncio.sleep(0.001)
            assert not ws.clogged
        return clogged, heard

    with asyncio.Runner(loop_factory=loop.factory() if uvloop else None) as runner:
        clogged, heard = runner.run(scenario())

    assert clogged
    assert heard == [*texts, "last"]


async def test_what_waits_already_is_not_overtaken() -> None:
    heard: list[str] = []
    over = asyncio.Event()

    async def take(served: web.WebSocketResponse) -> None:
        await listen(served, heard)
        over.set()

    async with opened(take) as ws:
        ws.write(frame.text("1"))
        await ws.send_str("2")
        ws.write(frame.text("3") + frame.text("4"))
        await ws.close()
        await over.wait()

    assert heard == ["1", "2", "3", "4"]


async def test_nothing_is_written_to_a_closed_socket() -> None:
    async def take(served: web.WebSocketResponse) -> None:
        await served.close()

    async with opened(take) as ws:
        await ws.receive()
        with pytest.raises(ConnectionResetError):
            ws.write(frame.text("1"))
