from collections.abc import Callable, Mapping

import pytest
from multidict import CIMultiDict, MultiDict

from bridge.local.twilio.account import Account
from bridge.twilio import mismatch
from bridge.twilio.signature import Signatures

ACCOUNT = Account("AC" + "2" * 32, "12345")
FORM = {"CallSid": "CA1", "From": "+15550100"}


def signed(url: str) -> Callable[[str], bool]:
    """Whether a signature that Twilio made for `url` fits another."""
    signature = ACCOUNT.signature(url, FORM)
    ours = Signatures([ACCOUNT.auth_token], "https://unused.example.com")
    return lambda other: ours.fits(other, MultiDict(FORM), signature)


def cause(
    called: str,
    public_url: str = "https://b.example.com",
    path: str = "/twilio/voice",
    headers: Mapping[str, str] | None = None,
) -> str:
    """What is said when Twilio called one address, and `path` reached a bridge that is known as another."""
    return mismatch.likely_cause(public_url, path, CIMultiDict(headers or {}), signed(called))


@pytest.mark.parametrize(
    ("called", "public_url", "headers", "said"),
    [
        ("http://b.example.com/twilio/voice", "https://b.example.com", {}, "Twilio calls http://"),
        ("https://b.example.com/twilio/voice", "http://b.example.com", {}, "Twilio calls https://"),
        ("https://b.example.com/twilio/media", "wss://b.example.com", {}, "Twilio calls https://"),
        (
            "https://b.example.net/twilio/voice",
            "https://b.example.com",
            {"Host": "b.example.net"},
            "another host than server.public_url has: b.example.net",
        ),
        (
            "https://b.example.net/twilio/voice",
            "https://b.example.com",
            {"Host": "127.0.0.1:8080", "X-Forwarded-Host": "b.example.net, inner"},
            "another host than server.public_url has: b.example.net",
        ),
        (
            "https://b.example.com:8443/twilio/voice",
            "https://b.example.com",
            {"Host": "b.example.com:8443"},
            "another port than server.public_url has: b.example.com:8443",
        ),
        (
            "https://b.example.com/twilio/voice",
            "https://b.example.com:8443",
            {"Host": "b.example.com"},
            "another port",
        ),
        ("https://b.example.com/twilio/voice", "https://b.example.com/team", {}, "has a path prefix"),
        (
            "https://b.example.com/team/twilio/voice",
            "https://b.example.com",
            {"X-Forwarded-Prefix": "/team/"},
            "lacks the path prefix that a proxy strips: /team",
        ),
        (
            "https://b.example.com/team/twilio/voice",
            "https://b.example.com",
            {"X-Original-URI": "/team/twilio/voice"},
            "lacks the path prefix that a proxy strips: /team",
        ),
        ("https://b.example.com/twilio/voice/", "https://b.example.com", {}, "rewrote the path"),
        (
            "http://b.example.net/twilio/voice",
            "https://b.example.com",
            {"Host": "b.example.net"},
            "Twilio calls http://, and server.public_url makes it https://; Twilio calls another host",
        ),
    ],
)
def test_the_address_that_twilio_did_sign_is_found(
    called: str, public_url: str, headers: dict[str, str], said: str
) -> None:
    path = "/twilio/media" if "media" in called else "/twilio/voice"
    assert said in cause(called, public_url, path, headers)


@pytest.mark.parametrize(
    ("called", "arrived"),
    [
        ("then=https%3A%2F%2Fx.example.com%2Fa%20b", "then=https%3A%2F%2Fx.example.com%2Fa+b"),
        ("then=https%3A%2F%2Fx.example.com%2F", "then=https://x.example.com/"),
        ("then=https://x.example.com/", "then=https%3A%2F%2Fx.example.com%2F"),
        ("a=1&b=2", "b=2&a=1"),
        ("", "utm=1"),
        ("a=1", "a=1&b="),
    ],
)
def test_a_query_that_a_proxy_rewrote(called: str, arrived: str) -> None:
    url = "https://b.example.com/twilio/voice" + (f"?{called}" if called else "")
    assert "rewrote the query" in cause(url, path=f"/twilio/voice?{arrived}")


def test_a_signature_of_another_token_fits_nothing_and_the_guess_says_where_to_look() -> None:
    other = Account("AC", "another").signature("https://b.example.com/twilio/voice", FORM)
    ours = Signatures([ACCOUNT.auth_token], "https://b.example.com")
    tried: list[str] = []

    def fits(url: str) -> bool:
        tried.append(url)
        return ours.fits(url, MultiDict(FORM), other)

    headers = CIMultiDict({"Host": "x.example.com:9", "X-Forwarded-Host": "y", "X-Forwarded-Prefix": "/p"})
    path = "/twilio/voice?a=%2F&b="
    assert mismatch.likely_cause("https://b.example.com:1/q", path, headers, fits) == ""
    assert len(tried) < 250, "this is done once a second, while calls go on"
    same = mismatch.guess("https://b.example.com/q", {"Host": "b.example.com:443"})
    assert "twilio.auth_token is not the account's" in same
    assert "path prefix" in same
    assert "the Host header has 'evil'" in mismatch.guess("https://b.example.com", {"Host": "evil"})


@pytest.mark.parametrize("host", ["", "[", ":", "é" * 300, "a:b:c", "[::1]:99"])
def test_no_header_is_too_odd(host: str) -> None:
    headers = {"Host": host, "X-Forwarded-Host": host, "X-Original-URI": host, "X-Forwarded-Prefix": host}
    assert cause("https://elsewhere.example.com/", headers=headers, path="/x?%ff=%") == ""
    assert mismatch.guess("https://b.example.com", headers)
