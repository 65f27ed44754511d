import hashlib
from collections.abc import Mapping
from typing import Any
from unittest import mock

import pytest
from aiohttp import StreamReader, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, MultiDict

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


def posted(path: str, body: bytes, **headers: str) -> web.Request:
    """A POST as it reaches us."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    stream = StreamReader(mock.Mock(_reading_paused=False), 2**16)
    stream.feed_data(body)
    stream.feed_eof()
    return make_mocked_request("POST", path, headers={"Host": "b.example.com", **names}, payload=stream)


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


JSON = b'{"CallSid": "CA1", "n": 1, "x": null}'
HASHED = "/twilio/voice?bodySHA256=" + hashlib.sha256(JSON).hexdigest()


async def test_the_texts_of_a_json_body_are_the_fields_if_its_hash_is_signed() -> None:
    signature = ACCOUNT.signature("https://b.example.com" + HASHED)
    about = {"Content_Type": "application/json", "X_Twilio_Signature": signature}
    assert await gate().form(posted(HASHED, JSON, **about)) == MultiDict({"CallSid": "CA1"})
    for body in (JSON + b" ", b"[]", b"{", b"\xff", b"[" * 50_000):
        with pytest.raises(web.HTTPForbidden):
            await gate().form(posted(HASHED, body, **about))
    plain = ACCOUNT.signature("https://b.example.com/twilio/voice")
    with pytest.raises(web.HTTPForbidden):
        await gate().form(posted("/twilio/voice", JSON, **(about | {"X_Twilio_Signature": plain})))


@pytest.mark.parametrize(
    ("path", "headers", "said"),
    [
        ("/twilio/voice", {}, "this is not Twilio"),
        (
            "/twilio/voice",
            {"X_Twilio_Signature": ACCOUNT.signature("http://b.example.com/twilio/voice", {"CallSid": "CA1"})},
            "Twilio calls http://",
        ),
        (
            "/twilio/voice?then=https://user:pw@x.example.com/",
            {"X_Twilio_Signature": Account("AC", "an older token").signature("https://b.example.com/twilio/voice")},
            "twilio.auth_token is not the account's",
        ),
        (
            HASHED,
            {
                "Content_Type": "application/json",
                "X_Twilio_Signature": ACCOUNT.signature("https://b.example.com" + HASHED),
            },
            "bodySHA256 in the query is another",
        ),
    ],
)  # fmt: skip
async def test_the_log_says_which_address_was_checked_and_why_it_may_not_fit(
    path: str, headers: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Content_Type": "application/x-www-form-urlencoded"} | headers
    with pytest.raises(web.HTTPForbidden):
        await gate().form(posted(path, b"CallSid=CA1", **headers))
    line = capsys.readouterr().out
    assert said in line
    assert "https://b.example.com/twilio/voice" in line
    for secret in (
        ACCOUNT.auth_token,
        "user:pw",
        "x.example.com",
        headers.get("X_Twilio_Signature", "never"),
    ):
        assert secret not in line


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"CallSid=CA1&AccountSid=AC" + b"9" * 32, "another account than twilio.account_sid"),
        (b"&".join(b"f%d=1" % number for number in range(500)), "so many fields"),
    ],
)
async def test_what_the_form_tells_about_a_signature_that_does_not_fit(
    body: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"Content_Type": "application/x-www-form-urlencoded", "X_Twilio_Signature": "x"}
    with pytest.raises(web.HTTPForbidden):
        await gate().form(posted("/twilio/voice", body, **headers))
    assert said in capsys.readouterr().out


def test_two_signatures_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    signed = ACCOUNT.signature("wss://b.example.com/twilio/media")
    twice = CIMultiDict([("X-Twilio-Signature", signed)] * 2)
    with pytest.raises(web.HTTPForbidden):
        gate().check_upgrade(make_mocked_request("GET", "/twilio/media", headers=twice))
    assert "more than one signature" in capsys.readouterr().out


async def test_while_the_auth_token_is_rotated_both_are_accepted() -> None:
    rotating = gate(auth_token=["new", ACCOUNT.auth_token])
    for token in ("new", ACCOUNT.auth_token):
        signed = Account(ACCOUNT.sid, token).signature("wss://b.example.com/twilio/media")
        rotating.check_upgrade(upgrade("/twilio/media", signed))
    before = gate().issue(FORM, now=100.0)
    await rotating.redeem(start({PARAMETER: before}), now=101.0)
    after = rotating.issue(FORM, now=100.0)
    await gate(auth_token="new").redeem(start({PARAMETER: after}), now=101.0)
    with pytest.raises(TokenRefused, match="forged"):
        await gate().redeem(start({PARAMETER: rotating.issue(FORM, now=100.0)}), now=101.0)


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


async def test_a_stream_that_comes_again_is_awaited_as_long_as_its_token_lives() -> None:
    """Twilio queues what it is asked for by REST; on a full machine it must be let in all the same."""
    one = gate()
    one.issue(FORM, now=100.0, again=True)
    one.issue({**FORM, "CallSid": "CA2"}, now=110.0)
    assert one.awaited(139.9) == 2
    assert one.awaited(140.0) == one.awaited(189.9) == 1
    assert one.awaited(190.0) == 0


async def test_a_stream_is_awaited_from_its_token_until_it_comes_or_for_half_a_minute() -> None:
    one = gate()
    token = one.issue(FORM, now=100.0)
    one.issue({**FORM, "CallSid": "CA2"}, now=110.0, again=True)
    one.issue({**FORM, "CallSid": "CA2"}, now=120.0)
    assert one.awaited(120.0) == 2
    with pytest.raises(TokenRefused):
        await one.redeem(start({PARAMETER: token + "x"}), now=120.0)
    assert one.awaited(120.0) == 2
    await one.redeem(start({PARAMETER: token}), now=120.0)
    assert one.awaited(120.0) == one.awaited(149.9) == 1
    assert one.awaited(150.0) == 0
