import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.config import TwilioConfig
from bridge.twilio import rest as module
from bridge.twilio.addresses import Addresses
from bridge.twilio.live import LiveCalls
from bridge.twilio.rest import RestFailed, Turns, TwilioRest

ACCOUNT, TOKEN, CALL = "AC" + "1" * 32, "an-auth-token", "CA" + "2" * 32
ADDRESSES = Addresses.of("https://bridge.example.com")
PATH = f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{CALL}.json"

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def twilio(answer: Answer, *, prefix: str = "") -> AsyncIterator[TwilioRest]:
    app = web.Application()
    app.router.add_get(prefix + PATH, answer)
    app.router.add_post(prefix + PATH, answer)
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
        fate = await LiveCalls(rest, ADDRESSES).fate(CALL)
    assert (fate.status, fate.over, fate.ended_at) == ("in-progress", False, None)
    assert asked == ["Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()]


@pytest.mark.parametrize("status", ["completed", "busy", "failed", "no-answer", "canceled"])
async def test_a_call_that_is_over_has_its_time(status: str) -> None:
    body = {"sid": CALL, "status": status, "end_time": "Fri, 20 Nov 2026 10:00:00 +0000"}
    async with twilio(saying(200, body)) as rest:
        fate = await LiveCalls(rest, ADDRESSES).fate(CALL)
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
            await LiveCalls(rest, ADDRESSES).fate(CALL)
    assert words in str(failed.value)
    assert TOKEN not in str(failed.value)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"", b"7", b"{}"])
@pytest.mark.parametrize("status", [200, 502])
async def test_something_that_is_not_twilio_is_a_sentence(status: int, body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body)

    async with twilio(answer) as rest:
        with pytest.raises(RestFailed, match="Twilio's REST API answered"):
            await LiveCalls(rest, ADDRESSES).fate(CALL)


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
            await LiveCalls(rest, ADDRESSES).fate(CALL)
    nowhere = TwilioConfig(
        account_sid=ACCOUNT,
        auth_token=TOKEN,  # type: ignore[arg-type]  # as above
        api_base_url="http://127.0.0.1:9",
    )
    async with TwilioRest(nowhere) as rest:
        with pytest.raises(RestFailed, match="cannot be reached: ClientConnectorError"):
            await LiveCalls(rest, ADDRESSES).fate(CALL)


async def test_without_credentials_nobody_is_asked() -> None:
    async with TwilioRest(TwilioConfig()) as rest:
        with pytest.raises(RestFailed, match=r"set twilio\.account_sid and twilio\.auth_token"):
            await LiveCalls(rest, ADDRESSES).fate(CALL)


def test_turns_come_evenly_and_the_first_at_once() -> None:
    turns = Turns(10, longest_s=30)
    assert [turns.take(100.0) for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert turns.take(100.25) == pytest.approx(0.15)
    assert turns.take(200.0) == 0


def test_a_turn_that_lies_too_far_ahead_is_not_given() -> None:
    turns = Turns(10, longest_s=1)
    given = [turns.take(0.0) for _ in range(15)]
    assert [each is None for each in given] == [False] * 11 + [True] * 4
    assert turns.take(5.0) == 0


async def test_changes_wait_for_their_turn_and_questions_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WRITES_PER_S", 50)
    monkeypatch.setattr(module, "LONGEST_WAIT_S", 0.1)
    came: list[tuple[str, float]] = []

    async def answer(request: web.Request) -> web.Response:
        came.append((request.method, asyncio.get_running_loop().time()))
        return web.json_response({"sid": CALL, "status": "in-progress"})

    async with twilio(answer) as rest:
        live = LiveCalls(rest, ADDRESSES)
        began = asyncio.get_running_loop().time()
        results = await asyncio.gather(
            *(live.redirect(CALL, "https://x.example.com/") for _ in range(10)),
            *(live.fate(CALL) for _ in range(10)),
            return_exceptions=True,
        )
    changes = sorted(at - began for method, at in came if method == "POST")
    refused = [each for each in results if isinstance(each, RestFailed)]
    assert len(came) == 10 + len(changes)
    assert len(changes) + len(refused) == 10
    assert refused
    assert all(each.passing and "50 a second" in str(each) for each in refused)
    assert all(at >= 0.02 * turn for turn, at in enumerate(changes))
