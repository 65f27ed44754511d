import hashlib

import pytest
from multidict import MultiDict
from twilio.request_validator import RequestValidator

from bridge.local.twilio.account import Account
from bridge.twilio.signature import Signatures

FORM = MultiDict(
    {
        "CallSid": "CA00000000000000000000000000000001",
        "CallStatus": "ringing",
        "From": "+15550100",
        "To": "+15550199",
    }
)


def signatures(public_url: str = "https://bridge.example.com", *tokens: str) -> Signatures:
    return Signatures(tokens or ("12345",), public_url)


@pytest.mark.parametrize(
    ("path", "signature"),
    [
        ("/media", "ASGyPT9kdDVOm79OxfQnw7HcSP8="),  # over wss://bridge.example.com/media
        ("/media/", "s8PR4IzGlCW8C4hFit29c/IbuH8="),  # over wss://bridge.example.com/media/
        ("/media", "C9S82mGEXw9m712vXhUGYWVNxaI="),  # over wss://bridge.example.com:443/media
    ],
)
def test_vectors_of_the_upgrade(path: str, signature: str) -> None:
    assert signatures().upgrade_is_valid(path, signature)
    assert signatures("https://bridge.example.com:443").upgrade_is_valid(path, signature)


def test_a_signature_of_another_path_is_refused() -> None:
    assert not signatures().upgrade_is_valid("/media", "s8PR4IzGlCW8C4hFit29c/IbuH8=")


def test_the_vector_of_a_post() -> None:
    assert signatures().post_is_valid("/voice", FORM, "HY8buTIClsMaWK2me+yyJ7POY3E=")
    assert signatures("https://bridge.example.com:443").post_is_valid(
        "/voice", FORM, "HY8buTIClsMaWK2me+yyJ7POY3E="
    )


@pytest.mark.parametrize("bad", ["", "HY8buTIClsMaWK2me+yyJ7POY3F=", "é" * 28, "x" * 10_000, "\udcff"])
def test_anything_else_is_refused(bad: str) -> None:
    assert not signatures().post_is_valid("/voice", FORM, bad)


def test_a_changed_parameter_is_refused() -> None:
    changed = MultiDict({**FORM, "To": "+15550198"})
    assert not signatures().post_is_valid("/voice", changed, "HY8buTIClsMaWK2me+yyJ7POY3E=")


def test_a_path_prefix_of_the_proxy_is_part_of_the_url() -> None:
    signed = Account("AC", "12345").signature(
        "https://proxy.example.com/team/bridge/twilio/voice?x=1", dict(FORM)
    )
    assert signatures("https://proxy.example.com/team/bridge").post_is_valid(
        "/twilio/voice?x=1", FORM, signed
    )


def test_any_of_several_tokens_will_do() -> None:
    both = signatures("https://bridge.example.com", "new", "12345")
    assert both.post_is_valid("/voice", FORM, "HY8buTIClsMaWK2me+yyJ7POY3E=")


def test_the_address_is_compared_exactly() -> None:
    other = Account("AC", "12345").signature("https://bridge.example.com/voice", dict(FORM))
    assert signatures().fits("https://bridge.example.com/voice", FORM, other)
    for url in ("https://bridge.example.com/voice/", "http://bridge.example.com/voice"):
        assert not signatures().fits(url, FORM, other)


@pytest.mark.parametrize(
    ("body", "query", "valid"),
    [
        (b'{"a": "b"}', "bodySHA256=" + hashlib.sha256(b'{"a": "b"}').hexdigest(), True),
        (b'{"a": "b"}', "x=1&bodySHA256=" + hashlib.sha256(b'{"a": "b"}').hexdigest().upper(), True),
        (b'{"a": "c"}', "bodySHA256=" + hashlib.sha256(b'{"a": "b"}').hexdigest(), False),
        (b'{"a": "b"}', "bodySHA256=", False),
        (b'{"a": "b"}', "bodySHA256=%C3%A9", False),
        (b'{"a": "b"}', "", False),
        (b"", "bodySHA256=" + hashlib.sha256(b"").hexdigest(), True),
    ],
)
def test_of_a_body_that_is_no_form_the_hash_is_signed(body: bytes, query: str, valid: bool) -> None:
    path = f"/voice?{query}"
    signed = Account("AC", "12345").signature(f"https://bridge.example.com{path}")
    assert signatures().body_is_valid(path, body, signed) is valid
    assert not signatures().body_is_valid(path, body, "HY8buTIClsMaWK2me+yyJ7POY3E=")


def test_twilios_own_library_agrees_about_the_hash() -> None:
    body = '{"CallSid": "CA1"}'
    url = "https://bridge.example.com/voice?bodySHA256=" + hashlib.sha256(body.encode()).hexdigest()
    signed = Account("AC", "12345").signature(url)
    assert RequestValidator("12345").validate(url, body, signed)
    assert signatures().body_is_valid(url.removeprefix("https://bridge.example.com"), body.encode(), signed)


def test_without_a_token_nothing_is_valid() -> None:
    assert not Signatures([], "https://bridge.example.com").upgrade_is_valid("/media", "")


def test_repeated_parameters_count_once_each() -> None:
    repeated = MultiDict([("a", "2"), ("a", "1"), ("a", "2")])
    once = MultiDict([("a", "1"), ("a", "2")])
    signed = RequestValidator("12345").compute_signature("https://bridge.example.com/voice", once)
    assert signatures().post_is_valid("/voice", repeated, signed)
