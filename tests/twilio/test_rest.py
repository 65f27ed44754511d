import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.config import TwilioConfig
from bridge.twilio import rest as module
from bridge.twilio.rest import RestFailed, TwilioRest

ACCOUNT, TOKEN, CALL = "AC" + "1" * 32, "an-auth-token", "CA" + "2" * 32
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def twilio(answer: Answer, *, prefix: str = "") -> AsyncIterator[TwilioRest]:
    app = web.Application()
    app.router.add_get(prefix + PATH, answer)
    async with (
        TestServer(app) as server,
        TwilioRest(
            TwilioConfig(
                account_sid=ACCOUNT,
                auth_token=TOKEN,  # type: ignore[arg-type]  # as from the file
                api_base_url=str(server.make_url(prefix)).rstrip("/"),
            )
        ) as rest,
    ):
        yield rest


def saying(status: int, body: object) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status)

    return answer


@pytest.mark.parametrize("prefix", ["", "/proxy/twilio"])
async def test_it_asks_for_the_call_as_the_account(prefix: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.json_response({"sid": CALL, "status": "in-progress", "end_time": None})

    async with twilio(answer, prefix=prefix) as rest:
        fate = await rest.fate(CALL)
    assert (fate.status, fate.over, fate.ended_at) == ("in-progress", False, None)
    assert asked == ["Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()]


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
async def test_a_call_that_is_over_has_its_time(status: str) -> None:
    body = {"sid": CALL, "status": status, "end_time": "Fri, 20 Nov 2026 10:00:00 +0000"}
    async with twilio(saying(200, body)) as rest:
        fate = await rest.fate(CALL)
    assert fate.over
    assert fate.ended_at == 1_795_168_800


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "refused the credentials (401)"),
        (403, "refused the credentials (403)"),
        (404, "does not know the call (404)"),
        (429, "asked too often (429)"),
        (500, "answered 500"),
        (503, "answered 503"),
    ],
)
async def test_a_refusal_is_a_sentence(status: int, words: str) -> None:
    async with twilio(saying(status, {"code": 20000, "message": "no", "status": status})) as rest:
        with pytest.raises(RestFailed) as failed:
            await rest.fate(CALL)
    assert words in str(failed.value)
    assert TOKEN not in str(failed.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"7", b"{}"])
@pytest.mark.parametrize("status", [200, 502])
async def test_something_that_is_not_twilio_is_a_sentence(status: int, body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with twilio(answer) as rest:
        with pytest.raises(RestFailed, match="Twilio's REST API answered"):
            await rest.fate(CALL)


async def test_silence_and_absence_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.1)

    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"{")
        assert request.transport is not None
        while not request.transport.is_closing():
            await asyncio.sleep(0.01)
        return response

    async with twilio(silent) as rest:
        with pytest.raises(RestFailed, match="did not answer within 0 s"):
            await rest.fate(CALL)
    nowhere = TwilioConfig(
        account_sid=ACCOUNT,
        auth_token=TOKEN,  # type: ignore[arg-type]  # as above
        api_base_url="http://127.0.0.1:9",
    )
    async with TwilioRest(nowhere) as rest:
        with pytest.raises(RestFailed, match="cannot be reached: ClientConnectorError"):
            await rest.fate(CALL)


async def test_without_credentials_nobody_is_asked() -> None:
    async with TwilioRest(TwilioConfig()) as rest:
        with pytest.raises(RestFailed, match=r"set twilio\.account_sid and twilio\.auth_token"):
            await rest.fate(CALL)
