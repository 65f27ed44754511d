"""The account's numbers by REST: pages, parts of numbers, and every way in which Twilio refuses."""

from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.config import TwilioConfig
from bridge.errors import BridgeError
from bridge.local.twilio.rest.fault import Fault
from bridge.numbers import account as module
from bridge.numbers.account import Account
from bridge.numbers.handling import FIELDS, Application
from bridge.twilio.rest import RestFailed, TwilioRest
from tests.doubles.bridge import ACCOUNT
from tests.doubles.exchange import exchange

ONE = "+15550101"


class Naps:
    """Instead of sleeping."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


async def test_every_page_is_read(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        for at in range(250):
            house.api.numbers.add(f"+1555{at:07}")
        found = await Account(house.rest).numbers()
        assert [each.number for each in found] == [f"+1555{at:07}" for at in range(250)]
        assert len(house.api.asked) == 3
        last = await Account(house.rest).find(f"+1555{249:07}")
        assert last == found[-1]
        assert await Account(house.rest).find("+1555") is None
        assert all(set(each.handling) == set(FIELDS) for each in found)


async def test_more_numbers_than_anybody_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    async with exchange(tmp_path) as house:
        for at in range(3):
            house.api.numbers.add(f"+1555010{at}")
        with pytest.raises(BridgeError, match="has more than 2 numbers"):
            await Account(house.rest).numbers()


async def test_an_application_and_an_update(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        application = house.api.applications.add("ivr", voice_url="https://a.example.com", voice_method="GET")
        account = Account(house.rest)
        assert await account.application(application) == Application(
            "https://a.example.com", "GET", "", "POST"
        )
        sid = house.api.numbers.add(ONE)
        await account.update(sid, {})
        assert len(house.api.asked) == 1  # there was nothing to change
        await account.update(sid, {"voice_url": "https://a.example.com/?x=1&y=%20", "voice_method": "GET"})
        found = await account.find(ONE)
        assert found is not None
        assert found.handling["voice_url"] == "https://a.example.com/?x=1&y=%20"


async def test_a_method_that_is_not_shown_is_twilio_s_own(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add(ONE, voice_method=None, trunk_sid=None)
        found = await Account(house.rest).find(ONE)
        assert found is not None
        assert (found.handling["voice_method"], found.handling["trunk_sid"]) == ("POST", "")


@pytest.mark.parametrize(("retry_after_s", "naps"), [(None, [1, 2, 4]), (3, [3, 3, 4])])
async def test_asked_too_often_it_waits_and_asks_again(
    tmp_path: Path, retry_after_s: int | None, naps: list[float]
) -> None:
    async with exchange(tmp_path) as house:
        house.api.numbers.add(ONE)
        nap = Naps()
        fault = house.api.faults.add(Fault(status=429, times=3, retry_after_s=retry_after_s))
        assert await Account(house.rest, nap).find(ONE)
        assert nap.taken == naps
        nap.taken.clear()
        fault.times = 4
        with pytest.raises(RestFailed, match=r"asked too often \(429\)"):
            await Account(house.rest, nap).find(ONE)
        assert nap.taken == naps


async def test_a_pause_that_is_too_long_is_not_waited_for(tmp_path: Path) -> None:
    async with exchange(tmp_path) as house:
        sid = house.api.numbers.add(ONE)
        nap = Naps()
        house.api.faults.add(Fault(status=429, retry_after_s=60))
        with pytest.raises(RestFailed, match=r"asked too often \(429\)\. It may be asked again in 60 s"):
            await Account(house.rest, nap).update(sid, {"voice_url": "https://a.example.com"})
        assert nap.taken == []


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "refused the credentials"), (404, "does not know the account's numbers"), (503, "answered 503")],
)
async def test_a_list_that_is_refused(tmp_path: Path, status: int, words: str) -> None:
    """On the first page and on a later one, where the library does not say what it was told."""
    async with exchange(tmp_path) as house:
        for at in range(101):
            house.api.numbers.add(f"+1555{at:07}")
        for page in (0, 1):
            if page:
                house.api.faults.add(Fault(where="GET "))
            house.api.faults.add(Fault(where="GET ", status=status))
            with pytest.raises(RestFailed, match=words) as failed:
                await Account(house.rest).numbers()
            assert failed.value.status == status
            assert ACCOUNT.auth_token not in str(failed.value)


async def test_a_list_that_leads_back_to_itself_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGES", 5)
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.json_response({"incoming_phone_numbers": [], "next_page_uri": request.path_qs})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        config = TwilioConfig.model_validate(
            {
                "account_sid": ACCOUNT.sid,
                "auth_token": ACCOUNT.auth_token,
                "api_base_url": str(server.make_url("")),
            }
        )
        async with TwilioRest(config) as rest:
            with pytest.raises(RestFailed, match="something else than the account's numbers"):
                await Account(rest).numbers()
    assert asked == 1 + 5


@pytest.mark.parametrize("number", ["null", "7", '{"sid": 1}', '{"sid": "PN1", "phone_number": ["+1"]}'])
async def test_something_else_than_a_number(number: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=f'{{"incoming_phone_numbers": [{number}]}}', content_type="application/json")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        config = TwilioConfig.model_validate(
            {
                "account_sid": ACCOUNT.sid,
                "auth_token": ACCOUNT.auth_token,
                "api_base_url": str(server.make_url("")),
            }
        )
        async with TwilioRest(config) as rest:
            with pytest.raises(RestFailed, match="something else than the account's numbers"):
                await Account(rest).numbers()
