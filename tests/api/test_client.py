import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.api import client as module
from bridge.api.api import PREFIX, api
from bridge.api.client import Client, address
from bridge.api.gate import Gate
from bridge.config import Config
from bridge.errors import BridgeError, ConfigError, UsageError

CERTIFICATE = Path(__file__).parents[1] / "whisper" / "self-signed.pem"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app, scheme="https" if tls else "http")
    await server.start_server(ssl=tls)
    try:
        yield str(server.make_url("")).rstrip("/")
    finally:
        await server.close()


def answering(status: int, body: str) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    return answer


async def get(url: str) -> object:
    async with Client(url, "token") as bridge:
        return await bridge.get("/it", [("a", "1"), ("a", "&2+")], holds="it")


async def test_it_brings_the_token_the_query_and_the_body() -> None:
    async def echo(request: web.Request) -> web.Response:
        query = list(request.query.items())
        body = await request.json() if request.can_read_body else None
        return web.json_response({"it": [request.method, request.path, query, body]})

    app = web.Application()
    app.add_subapp(PREFIX, api(Gate("token"), [web.get("/it", echo), web.post("/it", echo)]))
    server = TestServer(app)
    async with server, Client(str(server.make_url("/")), "token") as bridge:
        got = await bridge.get("/it", [("a", "1"), ("a", "&2+")], holds="it")
        assert got == {"it": ["GET", "/api/it", [["a", "1"], ["a", "&2+"]], None]}
        posted = await bridge.post("/it", {"call_sid": "CA1"}, holds="it")
        assert posted == {"it": ["POST", "/api/it", [], {"call_sid": "CA1"}]}
    async with TestServer(app) as again, Client(str(again.make_url("/")), "another") as bridge:
        with pytest.raises(
            BridgeError, match=r"refuses the admin token: server\.admin_token must be"
        ) as refused:
            await bridge.get("/it", [], holds="it")
        assert "another" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, "404: Not Found", BridgeError, "no operator's API at .*: the bridge was started with an empty"),
        (503, '{"error": "the outbox is down"}', BridgeError, "answers 503: the outbox is down"),
        (429, '{"error": "More than 10 attempts"}', BridgeError, "answers 429: More than 10 attempts"),
        (400, '{"error": "state is wrong"}', UsageError, "state is wrong"),
        (413, '{"error": "too large"}', UsageError, "too large"),
        (500, "<html>", BridgeError, "answers 500: that is no answer of a bridge"),
        (200, "hello", BridgeError, "answers 200: that is no answer of a bridge"),
        (200, "[]", BridgeError, "answers 200: that is no answer of a bridge"),
        (200, '{"other": 1}', BridgeError, "answers 200: that is no answer of a bridge"),
        (200, "[" * 100_000, BridgeError, "answers 200: that is no answer of a bridge"),
        (302, "", BridgeError, "answers 302"),
        (502, json.dumps({"error": "x" * 10_000}), BridgeError, "x{500}$"),
    ],
)
async def test_what_an_answer_means(status: int, body: str, kind: type[BridgeError], words: str) -> None:
    async with serving(answering(status, body)) as url:
        with pytest.raises(BridgeError, match=words) as error:
            await get(url)
    assert type(error.value) is kind


async def test_the_token_does_not_follow_a_redirect() -> None:
    heard: list[str] = []

    async def redirect(request: web.Request) -> web.Response:
        heard.append(request.path)
        return web.Response(status=307, headers={"Location": "/elsewhere"})

    async with serving(redirect) as url:
        with pytest.raises(BridgeError, match="answers 307"):
            await get(url)
    assert heard == ["/api/it"]


async def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(
        BridgeError,
        match=rf"no bridge answers at http://127.0.0.1:{port} \(Connection refused\): is .whisper-bridge serve",
    ):
        await get(f"http://127.0.0.1:{port}")


async def test_somebody_who_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BridgeError, match="did not answer in time"):
            await get(f"http://127.0.0.1:{port}")


async def test_somebody_who_hangs_up() -> None:
    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with serving(drop) as url:
        with pytest.raises(BridgeError, match=f"the bridge at {url} broke off"):
            await get(url)


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    async with serving(answering(200, '{"it": 1}'), tls) as url:
        assert url.startswith("https://")
        with pytest.raises(BridgeError, match=r"the certificate of https://.* cannot be trusted"):
            await get(url)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("::", "http://[::1]:8080"),
        ("::1", "http://[::1]:8080"),
        ("192.0.2.7", "http://192.0.2.7:8080"),
        ("bridge.internal", "http://bridge.internal:8080"),
    ],
)
def test_the_address_of_a_configuration(host: str, expected: str) -> None:
    assert address(Config.model_validate({"server": {"host": host}})) == expected
    Client(expected, "token")


def test_any_free_port_has_to_be_named() -> None:
    with pytest.raises(UsageError, match=r"server\.port is 0.*--url"):
        address(Config.model_validate({"server": {"port": 0}}))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8080",
        "ftp://x/",
        "http://",
        "http://:80",
        "http://x:0",
        "http://x:99999",
        "http://x:a",
        "http://[::1",
        "http://user:secret@x",
        "http://x?token=secret",
        "http://x#y",
    ],
)
def test_what_is_no_address_of_a_bridge(url: str) -> None:
    with pytest.raises(UsageError, match="--url must be the address of a bridge") as refused:
        Client(url, "token")
    assert "secret" not in str(refused.value)


def test_without_a_token_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"server\.admin_token is empty.*BRIDGE_SERVER__ADMIN_TOKEN"):
        Client("http://127.0.0.1:8080", "")


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://localhost", False),
        ("https://bridge.example.com", False),
        ("http://bridge.example.com", True),
    ],
)
def test_it_knows_when_the_token_could_be_read_on_its_way(url: str, exposed: bool) -> None:
    assert Client(url, "token").exposed is exposed
