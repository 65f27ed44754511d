from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import MultiDict

from bridge.config import Config
from bridge.local.twilio.account import Account
from bridge.outbox.outbox import OutboxDown
from bridge.twilio import gate as module
from bridge.twilio.gate import Gate
from bridge.twilio.media import Start
from bridge.twilio.stream_token import PARAMETER, TokenRefused

ACCOUNT = Account("AC" + "2" * 32, "12345")
FORM = MultiDict(
    {"CallSid": "CA1", "AccountSid": ACCOUNT.sid, "From": "+1", "To": "+2", "Direction": "inbound"}
)


def gate(public_url: str = "https://b.example.com", **twilio: Any) -> Gate:
    values = {"account_sid": ACCOUNT.sid, "auth_token": ACCOUNT.auth_token} | twilio
    spent: set[str] = set()

    async def spend(nonce: str, expires: float) -> bool:
        assert expires > 100
        fresh = nonce not in spent
        spent.add(nonce)
        return fresh

    return Gate(Config.model_validate({"twilio": values}), public_url, spend)


def start(parameters: Mapping[str, str], account: str = ACCOUNT.sid) -> Start:
    return Start("MZ1", "CA1", account, ["inbound"], dict(parameters))


def upgrade(path: str, signature: str | None) -> web.Request:
    headers = {} if signature is None else {"X-Twilio-Signature": signature}
    return make_mocked_request("GET", path, headers=headers)


def test_the_upgrade_needs_the_signature_of_its_own_address() -> None:
    signed = ACCOUNT.signature("wss://b.example.com/prefix/twilio/media")
    gate("https://b.example.com/prefix").check_upgrade(upgrade("/twilio/media", signed))
    for wrong in (signed[:-2] + "x=", None, ""):
        with pytest.raises(web.HTTPForbidden):
            gate("https://b.example.com/prefix").check_upgrade(upgrade("/twilio/media", wrong))


def test_refusals_are_logged_at_most_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    one = gate()
    for _ in range(20):
        with pytest.raises(web.HTTPForbidden):
            one.check_upgrade(upgrade("/twilio/media", "wrong"))
    assert capsys.readouterr().out.count("signature_refused") == 1
    one._logged_at -= module.LOG_EVERY_S
    with pytest.raises(web.HTTPForbidden):
        one.check_upgrade(upgrade("/twilio/media", None))
    line = capsys.readouterr().out
    assert "wss://b.example.com/twilio/media" in line
    assert ACCOUNT.auth_token not in line


async def test_a_token_is_taken_out_of_the_parameters_and_spent() -> None:
    one = gate()
    token = one.issue(FORM, now=100.0)
    begun = start({PARAMETER: token, "tenant": "acme"})
    ticket = await one.redeem(begun, now=101.0)
    with pytest.raises(TokenRefused, match="used"):
        await one.redeem(start({PARAMETER: token}), now=101.0)
    assert (ticket.from_, ticket.to, ticket.direction) == ("+1", "+2", "inbound")
    assert begun.parameters == {"tenant": "acme"}


async def test_a_foreign_account_is_refused_whatever_it_brings() -> None:
    one = gate()
    with pytest.raises(TokenRefused, match="account"):
        await one.redeem(start({PARAMETER: one.issue(FORM, now=100.0)}, account="AC9"), now=101.0)


async def test_only_without_signatures_a_stream_may_come_without_a_token() -> None:
    with pytest.raises(TokenRefused, match="missing"):
        await gate().redeem(start({}), now=0.0)
    lenient = gate(verify_signatures=False)
    assert (await lenient.redeem(start({}), now=0.0)).from_ == ""
    with pytest.raises(TokenRefused, match="forged"):
        await lenient.redeem(start({PARAMETER: "v1.x.y"}), now=0.0)


async def test_while_the_outbox_is_down_a_token_still_serves_once() -> None:
    one = gate()
    token = one.issue(FORM, 100.0)

    async def down(_nonce: str, _expires: float) -> bool:
        raise OutboxDown("away")

    one._spend = down
    assert (await one.redeem(start({PARAMETER: token}), 110.0)).call_sid == "CA1"
    with pytest.raises(TokenRefused, match="used"):
        await one.redeem(start({PARAMETER: token}), 111.0)
    assert len(one._admitted) == 1
    other = one.issue(FORM, 300.0)
    await one.redeem(start({PARAMETER: other}), 300.0)
    assert len(one._admitted) == 1, "what has expired is forgotten"
