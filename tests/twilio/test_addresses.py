import pytest

from bridge.config import (
    CallFlow,
    NumberSettings,
    TranscriptConfig,
    TwilioConfig,
    WebhookConfig,
    WhisperConfig,
)
from bridge.twilio.addresses import Addresses, stream_origin


def number(**twilio: str) -> NumberSettings:
    sections = WhisperConfig(), WebhookConfig(), TranscriptConfig()
    return NumberSettings("+1", CallFlow(), TwilioConfig.model_validate(twilio), *sections)


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        ("https://b.example.com", "wss://b.example.com"),
        ("https://b.example.com:8443/asr", "wss://b.example.com:8443/asr"),
        ("http://127.0.0.1:8080", "ws://127.0.0.1:8080"),
    ],
)
def test_they_lie_under_the_public_url(public_url: str, origin: str) -> None:
    assert stream_origin(public_url) == origin
    assert Addresses.of(public_url) == Addresses(
        voice=f"{public_url}/twilio/voice",
        media=f"{origin}/twilio/media",
        stream_status=f"{public_url}/twilio/stream-status",
        resume=f"{public_url}/twilio/resume",
    )


@pytest.mark.parametrize(
    ("mode", "tracks", "word"),
    [
        ("start", "both", "both_tracks"),
        ("start", "inbound", "inbound_track"),
        ("start", "outbound", "outbound_track"),
        ("connect", "both", "inbound_track"),
    ],
)
def test_a_stream_is_asked_for_under_a_name_that_no_other_has(mode: str, tracks: str, word: str) -> None:
    addresses = Addresses.of("https://b.example.com")
    settings = number(mode=mode, tracks=tracks)
    asked = [addresses.stream(settings) for _ in range(20)]
    names = {each.pop("name") for each in asked}
    assert len(names) == 20
    assert all(name.startswith("bridge-") for name in names)
    assert asked[0] == {
        "url": "wss://b.example.com/twilio/media",
        "track": word,
        "status_callback": "https://b.example.com/twilio/stream-status",
        "status_callback_method": "POST",
    }


def test_a_call_flow_that_was_named_is_handed_on() -> None:
    addresses = Addresses.of("https://b.example.com")
    going_on = addresses.going_on("?then=x")
    assert going_on.resume == "https://b.example.com/twilio/resume?then=x"
    assert going_on.media == addresses.media
