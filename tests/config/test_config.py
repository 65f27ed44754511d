"""What must hold between the sections, and what holds for one number."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.config import CallFlow, Config, is_loopback
from bridge.errors import ConfigError

SECRET = "whsec_" + "QUJD" * 8
NUMBER, OTHER = "+15551234567", "+15551234568"


def config(**sections: Any) -> Config:
    return Config.model_validate(sections)


def missing(**sections: Any) -> list[str]:
    try:
        config(**sections).require_serving()
    except ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_signatures_may_be_unverified_on_loopback_only() -> None:
    unverified = {"verify_signatures": False}
    assert config(twilio=unverified, server={"host": "::1"})
    with pytest.raises(ValidationError, match=r"refused unless server\.host is a loopback address"):
        config(twilio=unverified, server={"host": "0.0.0.0"})


def test_a_number_stands_once() -> None:
    with pytest.raises(ValidationError, match="stands here already"):
        config(numbers=[{"number": NUMBER}, {"number": OTHER}, {"number": NUMBER}])


def test_connect_mode_carries_inbound_only() -> None:
    assert config(twilio={"mode": "connect"}).twilio.tracks == "both"
    with pytest.raises(ValidationError, match="inbound audio only"):
        config(twilio={"mode": "connect", "tracks": "outbound"})
    with pytest.raises(ValidationError, match="inbound audio only"):
        config(twilio={"tracks": "outbound"}, numbers=[{"number": NUMBER, "mode": "connect"}])


def test_where_the_journals_lie() -> None:
    outbox = {"url": "sqlite:///var/lib/x"}
    assert config(outbox=outbox).journal_directory == Path("/var/lib/x/journal")
    assert config(outbox=outbox, journal={"path": "/fast"}).journal_directory == Path("/fast")
    shared = {"url": "postgresql://u@h/d"}
    assert config(outbox=shared, journal={"path": "/fast"}).journal_directory == Path("/fast")


def test_a_number_has_its_own_values_over_the_sections() -> None:
    both = config(
        whisper={"language": "en", "prompt": "Acme", "vad": {"threshold": 0.4, "speech_pad_ms": 1}},
        webhook={"url": "https://example.com/", "secret": SECRET},
        numbers=[
            {
                "number": NUMBER,
                "then": "https://example.com/flow",
                "language": "es",
                "tracks": "inbound",
                "vad": {"threshold": 0.6},
                "whisper_model_id": "abcd1234",
                "webhook_url": "https://example.com/es",
            }
        ],
    )
    mine = both.for_number(NUMBER)
    assert (mine.number, mine.then) == (NUMBER, CallFlow("https://example.com/flow"))
    assert (mine.whisper.language, mine.whisper.prompt) == ("es", "Acme")
    assert (mine.whisper.vad.threshold, mine.whisper.vad.speech_pad_ms) == (0.6, 1)
    assert mine.whisper.endpoint_url.startswith("wss://model-abcd1234.")
    assert (mine.webhook.url, mine.webhook.secret) == ("https://example.com/es", both.webhook.secret)
    assert (mine.twilio.tracks, mine.twilio.mode) == ("inbound", "start")
    other = both.for_number(OTHER)
    assert (other.number, other.then) == (OTHER, CallFlow())
    assert (other.twilio, other.whisper, other.webhook) == (both.twilio, both.whisper, both.webhook)


def test_a_number_s_own_endpoint_replaces_either_spelling() -> None:
    number = {"number": NUMBER}
    by_id = config(
        whisper={"url": "wss://example.com/x"}, numbers=[{**number, "whisper_model_id": "abcd1234"}]
    )
    assert by_id.for_number(NUMBER).whisper.endpoint_url.startswith("wss://model-abcd1234.")
    by_url = config(
        whisper={"model_id": "abcd1234"}, numbers=[{**number, "whisper_url": "wss://example.com/x"}]
    )
    assert by_url.for_number(NUMBER).whisper.endpoint_url == "wss://example.com/x"


def test_warnings() -> None:
    assert config().warnings == ()
    assert config(whisper={"url": "ws://10.0.0.1/x"}).warnings == ()
    assert config(whisper={"url": "ws://localhost/x", "api_key": "key"}).warnings == ()
    keyed = {"url": "wss://example.com/x", "api_key": "key"}
    for plain in (
        config(whisper={**keyed, "url": "ws://10.0.0.1/x"}),
        config(whisper={**keyed, "fallback_url": "ws://10.0.0.1/x"}),
        config(whisper=keyed, numbers=[{"number": NUMBER, "whisper_url": "ws://10.0.0.1/x"}]),
    ):
        (sentence,) = plain.warnings
        assert "the API key travels unencrypted" in sentence
    assert "pose as Twilio" in config(twilio={"verify_signatures": False}).warnings[0]
    assert "wss:// only" in config(server={"public_url": "http://example.com"}).warnings[0]


SERVING: dict[str, Any] = {
    "server": {"public_url": "https://bridge.example.com"},
    "twilio": {"account_sid": "AC1", "auth_token": "token"},
    "webhook": {"url": "https://agent.example.com/x", "secret": SECRET},
}


def test_what_serving_needs() -> None:
    assert missing(**SERVING) == []
    assert [line.split()[0] for line in missing()] == [
        "twilio.account_sid",
        "twilio.auth_token",
        "server.public_url",
        "webhook.url",
        "webhook.secret",
    ]
    assert missing(twilio={"verify_signatures": False}, webhook=SERVING["webhook"]) == []
    assert len(missing(**{**SERVING, "server": {"host": "0.0.0.0"}})) == 1


def test_every_number_may_have_its_own_webhook_instead() -> None:
    own = {"webhook_url": "https://agent.example.com/a", "webhook_secret": SECRET}
    without = {**SERVING, "webhook": {}}
    assert missing(**without, numbers=[{"number": NUMBER, **own}]) == []
    assert [line.split()[0] for line in missing(**without, numbers=[{"number": NUMBER, **own}, {"number": OTHER}])] == [
        "webhook.url",
        "webhook.secret",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "networks", "allowed"),
    [
        ("https://agent.example.com/", [], True),
        ("https://agent.example.com:8443/", [], True),
        ("https://8.8.8.8/", [], True),
        ("https://agent.example.com:8080/", [], False),
        ("http://agent.example.com/", [], False),
        ("http://8.8.8.8/", ["10.0.0.0/8"], False),
        ("http://agent.internal:8080/", ["10.0.0.0/8"], True),
        ("https://10.0.0.1/", [], False),
        ("http://10.0.0.1:8080/", ["10.0.0.0/8"], True),
        ("http://192.168.0.1/", ["10.0.0.0/8"], False),
        ("http://localhost:8080/", [], False),
        ("http://localhost:8080/", ["127.0.0.0/8"], True),
        ("http://[::1]:8080/", ["::1/128"], True),
        ("https://[::ffff:10.0.0.1]/", [], False),
        ("https://169.254.169.254/", [], False),
    ],
)
def test_where_webhooks_may_go(url: str, networks: list[str], allowed: bool) -> None:
    webhook = {**SERVING["webhook"], "url": url, "allow_private_networks": networks}
    lines = missing(**{**SERVING, "webhook": webhook})
    assert [line.split(": ")[0] for line in lines] == ([] if allowed else ["webhook.url"])


def test_a_number_s_webhook_is_checked_too() -> None:
    lines = missing(**SERVING, numbers=[{"number": NUMBER, "webhook_url": "http://10.0.0.1/"}])
    assert [line.split(": ")[0] for line in lines] == ["numbers[0].webhook_url"]


def test_secrets_do_not_show() -> None:
    shown = repr(config(**SERVING, numbers=[{"number": NUMBER, "webhook_secret": SECRET}]))
    assert SECRET not in shown
    assert "'token'" not in shown
