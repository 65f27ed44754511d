import asyncio

import aiohttp
import pytest

from bridge.local.twilio.account import Account
from tests.doubles.twilio_client import TwilioClient
from tests.local.twilio.rest.conftest import ACCOUNT, World

NUMBER = "+15550101"


async def test_only_the_account_itself_is_let_in(world: World) -> None:
    stranger = TwilioClient(Account(ACCOUNT.sid, "wrong"), world.api)
    assert await stranger.refused(lambda client: client.calls("CA1").fetch()) == (401, 20003)
    other = world.twilio.client.api.v2010.accounts("AC" + "9" * 32)
    assert await world.twilio.refused(lambda _: other.calls("CA1").fetch()) == (404, 20404)


async def test_what_is_not_simulated_is_not_there(world: World) -> None:
    sid = world.api.numbers.add(NUMBER)
    assert await world.twilio.refused(lambda client: client.messages("SM1").fetch()) == (404, 20404)
    assert await world.twilio.refused(lambda client: client.incoming_phone_numbers(sid).delete()) == (
        405,
        20004,
    )


async def test_everything_that_was_asked_is_known(world: World) -> None:
    sid = world.api.numbers.add(NUMBER)
    await world.twilio.ask(
        lambda client: client.incoming_phone_numbers(sid).update(voice_url="https://a.example/")
    )
    await world.twilio.ask(lambda client: client.incoming_phone_numbers.list(phone_number=NUMBER))
    base = f"/2010-04-01/Accounts/{ACCOUNT.sid}/IncomingPhoneNumbers"
    assert world.api.asked == [f"POST {base}/{sid}.json", f"GET {base}.json"]
    assert world.api.requests[0].form == {"VoiceUrl": "https://a.example/"}
    assert world.api.requests[1].query["PhoneNumber"] == NUMBER


async def test_everything_may_be_refused(world: World) -> None:
    world.api.refuse = 503
    assert await world.twilio.refused(lambda client: client.calls("CA1").fetch()) == (503, 20500)
    world.api.refuse = None
    assert await world.twilio.refused(lambda client: client.calls("CA1").fetch()) == (404, 20404)


async def test_who_asks_too_often_is_told(world: World) -> None:
    world.api.per_s = 3
    listed = world.twilio.client.incoming_phone_numbers
    asked = await asyncio.gather(
        *(world.twilio.ask(lambda _: listed.page()) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(each, Exception) for each in asked) == 3
    async with asyncio.timeout(5):
        while isinstance(
            (await asyncio.gather(world.twilio.ask(lambda _: listed.page()), return_exceptions=True))[0],
            Exception,
        ):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("form", [{"voiceUrl": "https://a.example/"}, {"VoiceURL": ""}, {"voice_url": ""}])
async def test_a_misspelt_parameter_fails(world: World, form: dict[str, str]) -> None:
    sid = world.api.numbers.add(NUMBER)
    url = f"{world.api.url}/2010-04-01/Accounts/{ACCOUNT.sid}/IncomingPhoneNumbers/{sid}.json"
    headers = {"Authorization": aiohttp.encode_basic_auth(ACCOUNT.sid, ACCOUNT.auth_token)}
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.post(url, data=form) as answer:
            body = await answer.json()
        assert (answer.status, body["code"], body["status"]) == (400, 20001, 400)
        assert body["more_info"] == "https://www.twilio.com/docs/errors/20001"
        assert next(iter(form)) in body["message"]
        async with session.post(url, params=form) as answer:
            assert answer.status == 400
        async with session.post(url, json=form) as answer:
            assert answer.status == 400
        async with session.get(url, params=form) as answer:
            assert answer.status == 400
