import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.api import body as module
from bridge.api.api import PREFIX, api
from bridge.api.gate import Gate

JSON = {"Content-Type": "application/json"}


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"got": await module.json_object(request)})


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    app = web.Application(client_max_size=64 * 1024)
    app.add_subapp(PREFIX, api(Gate("token"), [web.post("/echo", echo)]))
    server = TestServer(app)
    async with server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer token"}) as session:
        yield session


async def test_an_object_is_read(server: TestServer, client: aiohttp.ClientSession) -> None:
    for kind in ("application/json", "application/json; charset=utf-8"):
        async with client.post(
            server.make_url("/api/echo"), data=b'{"a": [1]}', headers={"Content-Type": kind}
        ) as answer:
            assert (answer.status, await answer.json()) == (200, {"got": {"a": [1]}})


@pytest.mark.parametrize(
    "case",
    [
        (b"", JSON, 400, "not JSON"),
        (b"{", JSON, 400, "not JSON"),
        (b"\xff\xfe\xfa", JSON, 400, "not JSON"),
        (b"[" * 60_000, JSON, 400, "not JSON"),
        (b'"all"', JSON, 400, "must be a JSON object"),
        (b"[]", JSON, 400, "must be a JSON object"),
        (b"null", JSON, 400, "must be a JSON object"),
        (b"{}", {}, 415, "Content-Type: application/json"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "Content-Type: application/json"),
        (b"all=true", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "must be JSON"),
        (b" " * 65_537, JSON, 413, "Maximum request body size 65536 exceeded"),
    ],
)  # fmt: skip
async def test_what_is_no_object_is_one_sentence(
    server: TestServer, client: aiohttp.ClientSession, case: tuple[bytes, dict[str, str], int, str]
) -> None:
    body, headers, status, words = case
    async with client.post(server.make_url("/api/echo"), data=body, headers=headers) as answer:
        assert answer.status == status
        assert words in (await answer.json())["error"]


async def test_a_body_that_is_not_what_its_encoding_says(
    server: TestServer, client: aiohttp.ClientSession
) -> None:
    async with client.post(
        server.make_url("/api/echo"), data=b"{}", headers={**JSON, "Content-Encoding": "gzip"}
    ) as answer:
        assert answer.status == 400


async def test_a_body_that_does_not_come_is_not_waited_for(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BODY_S", 0.05)
    assert server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"POST /api/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer token\r\n"
        b"Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{"
    )
    assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
