import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from bridge.whisper import socket as module
from bridge.whisper.socket import ConnectFailed, SocketClosed, WhisperSocket

Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, **options: object) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0, ping_interval=None, **options) as running:  # type: ignore[arg-type]  # passed on
        yield f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/websocket"


@asynccontextmanager
async def deaf_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that takes the connection and reads nothing, until the event is set."""
    stop = asyncio.Event()

    async def deaf(socket: ServerConnection) -> None:
        socket.transport.pause_reading()
        await stop.wait()
        socket.transport.abort()

    async with server(deaf) as url:
        yield url, stop


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(str(len(message)))


async def test_frames_and_texts_go_out_and_messages_come_in() -> None:
    async with server(echo) as url:
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        socket.send_text("hello")
        socket.send_frame(bytes(1024))
        assert [await socket.receive(), await socket.receive()] == ["5", "1024"]
        await socket.close()
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert closed.value.code == 1000


async def test_nothing_is_compressed_and_we_say_who_we_are() -> None:
    headers: dict[str, str] = {}

    async def look(socket: ServerConnection) -> None:
        assert socket.request is not None
        headers.update(socket.request.headers.raw_items())

    async with server(look) as url:
        socket = await WhisperSocket.connect(url, api_key="k", timeout=2)
        await socket.close()
    assert headers["Authorization"] == "Api-Key k"
    assert headers["User-Agent"].startswith("whisper-bridge/")
    assert "Sec-WebSocket-Extensions" not in headers


async def test_messages_before_the_close_are_read_first() -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send("one")
        await socket.send("two")
        await socket.close(1011, "Internal Server Error (in model/chainlet).")

    async with server(talk) as url:
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        assert [await socket.receive(), await socket.receive()] == ["one", "two"]
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert (closed.value.code, closed.value.reason) == (
            1011,
            "Internal Server Error (in model/chainlet).",
        )
        socket.send_frame(bytes(1024))  # without effect
        await socket.close()


async def test_a_cut_connection_is_1006() -> None:
    async def cut(socket: ServerConnection) -> None:
        socket.transport.abort()

    async with server(cut) as url:
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert closed.value.code == 1006
        assert not socket.writable
        await socket.close()


async def test_a_refusal_tells_the_status() -> None:
    def refuse(connection: ServerConnection, _request: object) -> object:
        return connection.respond(403, "no\n")

    async with server(echo, process_request=refuse) as url:
        with pytest.raises(ConnectFailed, match=r"refused the socket with HTTP 403") as failed:
            await WhisperSocket.connect(url, api_key="wrong", timeout=2)
        assert failed.value.status == 403


async def test_a_refusal_tells_when_to_come_back() -> None:
    def refuse(connection: ServerConnection, _request: object) -> object:
        answer = connection.respond(503, "busy\n")
        answer.headers["Retry-After"] = "7"
        answer.headers["Retry-After"] = "9"  # twice makes no sense, and no harm
        return answer

    async with server(echo, process_request=refuse) as url:
        with pytest.raises(ConnectFailed) as failed:
            await WhisperSocket.connect(url, api_key="", timeout=2)
        assert (failed.value.status, failed.value.retry_after_s, failed.value.hung) == (503, 7.0, False)


async def test_a_handshake_that_hangs_times_out() -> None:
    async def hang(_connection: ServerConnection, _request: object) -> None:
        await asyncio.sleep(0.4)

    async with server(echo, process_request=hang) as url:
        with pytest.raises(ConnectFailed, match=r"did not open the socket within 0 s") as failed:
            await WhisperSocket.connect(url, api_key="", timeout=0.1)
        assert failed.value.hung


@pytest.mark.parametrize(
    "url", ["ws://127.0.0.1:9/websocket", "ws://no-such-host.invalid/websocket", "http://127.0.0.1/", "ws://"]
)
async def test_what_cannot_be_reached_is_said_in_a_sentence(url: str) -> None:
    with pytest.raises(ConnectFailed, match=r"could not be reached|is not a WebSocket URL"):
        await WhisperSocket.connect(url, api_key="", timeout=2)


async def test_a_redirect_is_not_followed() -> None:
    def away(connection: ServerConnection, _request: object) -> object:
        answer = connection.respond(301, "elsewhere\n")
        answer.headers["Location"] = "http://127.0.0.1:1/"
        return answer

    async with server(echo, process_request=away) as url:
        with pytest.raises(ConnectFailed) as failed:
            await WhisperSocket.connect(url, api_key="", timeout=2)
        assert failed.value.status == 301


async def test_a_server_that_does_not_read_makes_the_socket_unwritable() -> None:
    async with deaf_server() as (url, stop):
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        async with asyncio.timeout(5):
            while socket.writable:
                for _ in range(256):
                    socket.send_frame(bytes(1024))
                await asyncio.sleep(0)
        # What waits is bounded: some here, some in the kernel, some at the other end.
        assert module.WRITE_BUFFER < socket.unsent <= module.WRITE_BUFFER + 256 * 1100
        socket.abort()
        stop.set()
        await socket.close()


async def test_a_flood_of_messages_waits_in_the_network() -> None:
    sent = 0

    async def flood(socket: ServerConnection) -> None:
        nonlocal sent
        try:
            for number in range(20_000):
                await socket.send(f"{number} " + "x" * 1000)
                sent = number
        except ConnectionClosed:
            pass

    async with server(flood) as url:
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        await asyncio.sleep(0.3)
        assert len(socket._inbox) < 2 * module.MAX_QUEUE + 200
        assert sent < 19_999
        for number in range(3000):
            assert (await socket.receive()).startswith(f"{number} ")
        socket.abort()
        await socket.close()


async def test_a_message_in_fragments_is_put_together() -> None:
    async def parts(socket: ServerConnection) -> None:
        await socket.send(["a", "b", "c"])
        await socket.wait_closed()

    async with server(parts) as url:
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        assert await socket.receive() == "abc"
        await socket.close()


async def test_a_peer_that_answers_no_ping_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PING_INTERVAL_S", 0.05)
    async with deaf_server() as (url, stop):
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        async with asyncio.timeout(3):
            with pytest.raises(SocketClosed):
                await socket.receive()
        stop.set()
        await socket.close()


CERTIFICATE = Path(__file__).parent / "self-signed.pem"


@asynccontextmanager
async def tls_server() -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    async with server(echo, ssl=context) as url:
        yield url.replace("ws://127.0.0.1", "wss://localhost")


async def test_tls_is_verified() -> None:
    async with tls_server() as url:
        with pytest.raises(ConnectFailed, match="could not be reached"):
            await WhisperSocket.connect(url, api_key="", timeout=2)


async def test_tls_with_a_certificate_that_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_tls", lambda: ssl.create_default_context(cafile=str(CERTIFICATE)))
    async with tls_server() as url:
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        for _ in range(100):
            socket.send_frame(bytes(1024))
        assert [await socket.receive() for _ in range(100)] == ["1024"] * 100
        await socket.close()
        with pytest.raises(SocketClosed) as closed:
            await socket.receive()
        assert closed.value.code == 1000
