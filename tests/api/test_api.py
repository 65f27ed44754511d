import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.api.api import PREFIX, api
from bridge.api.gate import Gate
from bridge.errors import BridgeError, UsageError
from bridge.outbox.outbox import OutboxDown
from bridge.twilio.console import Refused
from bridge.twilio.rest import RestFailed

TOKEN = "an-admin-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
FAULTS = {
    "usage": UsageError("limit is wrong"),
    "down": OutboxDown("the outbox is away"),
    "failed": BridgeError("it could not be removed"),
    "unknown": Refused("unknown", "nobody knows it"),
    "conflict": Refused("conflict", "it is over"),
    "unready": Refused("unready", "it is full"),
    "twilio": RestFailed("Twilio is away", 500, passing=True),
    "twilio_over": RestFailed("the call is over", 400, 21220),
    "twilio_404": RestFailed("Twilio does not know it", 404),
    "large": web.HTTPRequestEntityTooLarge(max_size=10),
}


async def answer(request: web.Request) -> web.Response:
    if fault := FAULTS.get(request.match_info["what"]):
        raise fault
    return web.json_response({"what": request.match_info["what"]})


@asynccontextmanager
async def serving() -> AsyncIterator[TestServer]:
    app = web.Application()
    app.add_subapp(PREFIX, api(Gate(TOKEN), [web.get("/it/{what}", answer)]))
    server = TestServer(app)
    async with server:
        yield server


async def test_the_token_opens_every_route() -> None:
    async with (
        serving() as server,
        aiohttp.ClientSession() as client,
        client.get(server.make_url("/api/it/works"), headers=BEARER) as answered,
    ):
        assert (answered.status, await answered.json()) == (200, {"what": "works"})


async def test_without_it_nothing_is_told_not_even_what_there_is() -> None:
    async with serving() as server, aiohttp.ClientSession() as client:
        for path in ("/api/it/works", "/api/it/failed", "/api/nothing", "/api/"):
            async with client.get(server.make_url(path)) as answered:
                assert answered.status == 401
                assert answered.headers["WWW-Authenticate"].startswith("Bearer")
                assert answered.content_type == "application/json"
                assert "server.admin_token" in (await answered.json())["error"]


async def test_refusals_of_every_kind_are_one_sentence_in_json() -> None:
    expected = {
        "/api/it/usage": (400, "limit is wrong"),
        "/api/it/down": (503, "the outbox is away"),
        "/api/it/failed": (500, "it could not be removed"),
        "/api/it/unknown": (404, "nobody knows it"),
        "/api/it/conflict": (409, "it is over"),
        "/api/it/unready": (503, "it is full"),
        "/api/it/twilio": (502, "Twilio is away"),
        "/api/it/twilio_over": (409, "the call is over"),
        "/api/it/twilio_404": (404, "Twilio does not know it"),
        "/api/it/large": (413, "Maximum request body size 10 exceeded."),
        "/api/nothing": (404, "Nothing matches the given URI."),
    }
    async with serving() as server, aiohttp.ClientSession(headers=BEARER) as client:
        for path, (status, sentence) in expected.items():
            async with client.get(server.make_url(path)) as answered:
                assert (answered.status, await answered.json()) == (status, {"error": sentence})
                assert ("Retry-After" in answered.headers) == (status == 503)
        async with client.delete(server.make_url("/api/it/works")) as answered:
            assert answered.status == 405
            assert "GET" in answered.headers["Allow"]
            assert "error" in await answered.json()


async def test_a_header_of_any_bytes_is_only_a_wrong_token() -> None:
    async with serving() as server:
        assert server.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET /api/it/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\nConnection: close\r\n\r\n"
        )
        head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 401 ")
    assert "error" in json.loads(body)
