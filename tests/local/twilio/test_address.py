import pytest

from bridge.errors import UsageError
from bridge.local.twilio.address import Address, is_loopback

HERE = "http://127.0.0.1:8080"
VOICE = f"{HERE}/twilio/voice"


@pytest.mark.parametrize(
    ("public_url", "signed"),
    [
        (None, VOICE),
        (HERE, VOICE),
        ("https://bridge.example.com", "https://bridge.example.com/twilio/voice"),
        ("https://bridge.example.com/", "https://bridge.example.com/twilio/voice"),
        ("https://example.com/bridge/", "https://example.com/bridge/twilio/voice"),
        ("https://bridge.example.com:8443", "https://bridge.example.com:8443/twilio/voice"),
    ],
)
def test_what_is_signed_is_the_public_url(public_url: str | None, signed: str) -> None:
    assert Address.of(VOICE, public_url).signed(VOICE) == signed


@pytest.mark.parametrize(
    ("voice_url", "public_url", "written", "reached"),
    [
        (
            VOICE,
            "https://b.example.com",
            "wss://b.example.com/twilio/media",
            "ws://127.0.0.1:8080/twilio/media",
        ),
        (
            VOICE,
            "https://b.example.com",
            "wss://b.example.com:443/twilio/media",
            "ws://127.0.0.1:8080/twilio/media",
        ),
        (
            VOICE,
            "https://b.example.com",
            "https://b.example.com/status?a=1",
            "http://127.0.0.1:8080/status?a=1",
        ),
        (VOICE, "https://example.com/bridge", "wss://example.com/bridge/media", "ws://127.0.0.1:8080/media"),
        (VOICE, "https://example.com/bridge", "wss://example.com/other/media", None),
        (VOICE, "https://b.example.com", "wss://a.example.com/twilio/media", None),
        (VOICE, "https://b.example.com", "ws://127.0.0.1:8080/media", "ws://127.0.0.1:8080/media"),
        (VOICE, None, "wss://127.0.0.1:8080/twilio/media", "ws://127.0.0.1:8080/twilio/media"),
        (
            "https://b.example.com/twilio/voice",
            "https://b.example.com",
            "wss://b.example.com/twilio/media",
            "wss://b.example.com/twilio/media",
        ),
    ],
)
def test_where_a_url_of_the_bridge_is_reached(
    voice_url: str, public_url: str | None, written: str, reached: str | None
) -> None:
    assert Address.of(voice_url, public_url).reach(written) == reached


@pytest.mark.parametrize(
    "public_url", ["bridge.example.com", "wss://bridge.example.com", "https://", "https://a:b"]
)
def test_a_public_url_that_is_none(public_url: str) -> None:
    with pytest.raises(UsageError, match="the public URL"):
        Address.of(VOICE, public_url)


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:1/", True),
        ("ws://localhost/", True),
        ("http://[::1]:80/", True),
        ("http://10.0.0.1/", False),
        ("https://localhost.example.com/", False),
    ],
)
def test_this_machine(url: str, local: bool) -> None:
    assert is_loopback(url) is local
