"""What each section makes of its keys."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from bridge.config import OutboxConfig, ServerConfig, WhisperConfig
from bridge.config.sections import NumberConfig, TranscriptConfig, TwilioConfig, WebhookConfig


def test_the_whisper_endpoint() -> None:
    assert WhisperConfig().endpoint_url == "ws://127.0.0.1:9090/websocket"
    assert WhisperConfig(url="wss://example.com/x").endpoint_url == "wss://example.com/x"
    assert WhisperConfig(model_id="abcd1234", url="").endpoint_url == (
        "wss://model-abcd1234.api.baseten.co/environments/production/websocket"
    )
    assert WhisperConfig(model_id="abcd1234").endpoint_url.startswith("wss://model-abcd1234.")


def test_one_endpoint_only() -> None:
    with pytest.raises(ValidationError, match="name two endpoints"):
        WhisperConfig(model_id="abcd1234", url="wss://example.com/x")
    with pytest.raises(ValidationError, match="must not be empty"):
        WhisperConfig(url="")
    with pytest.raises(ValidationError, match="name two endpoints"):
        NumberConfig(number="+15551234567", whisper_model_id="abcd1234", whisper_url="wss://example.com/x")


def test_sections_cannot_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ServerConfig().port = 1


@pytest.mark.parametrize(
    ("state", "home", "directory"),
    [
        ("", "/home/you", "/home/you/.local/state/whisper-bridge"),
        ("/state", "/home/you", "/state/whisper-bridge"),
        ("relative", "/home/you", "/home/you/.local/state/whisper-bridge"),  # to be ignored, says XDG
    ],
)
def test_the_default_outbox(monkeypatch: pytest.MonkeyPatch, state: str, home: str, directory: str) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", state)
    monkeypatch.setenv("HOME", home)
    assert OutboxConfig().directory == Path(directory)


def test_a_user_without_a_home_has_to_name_an_outbox(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ValidationError, match="sqlite:///var/lib/whisper-bridge"):
        OutboxConfig()
    assert OutboxConfig(url=SecretStr("sqlite:///x")).directory == Path("/x")


def test_slashes_of_an_outbox_url() -> None:
    assert OutboxConfig(url=SecretStr("sqlite:///var/lib/x")).directory == Path("/var/lib/x")
    assert OutboxConfig(url=SecretStr("sqlite:////var/lib/x")).directory == Path("/var/lib/x")


def test_an_outbox_in_postgresql_is_shared_and_has_no_directory() -> None:
    assert not OutboxConfig(url=SecretStr("sqlite:///x")).shared
    shared = OutboxConfig(url=SecretStr("postgresql://u:hunter2@h/d"))
    assert shared.shared
    assert "hunter2" not in repr(shared)
    with pytest.raises(ValueError, match="no directory"):
        _ = shared.directory


def test_every_key_of_a_number_changes_something() -> None:
    """So that no key is read and then forgotten."""
    examples = {
        "mode": "connect",
        "tracks": "inbound",
        "language": "es",
        "partials": True,
        "dialect": "seed",
        "prompt": "Acme",
        "vad": {"threshold": 0.9},
        "whisper_url": "wss://example.com/x",
        "whisper_model_id": "abcd1234",
        "whisper_api_key": "key",
        "whisper_fallback_url": "wss://example.com/y",
        "drop_suspect": ["silent_audio"],
        "redact": ["card"],
        "webhook_url": "https://example.com/z",
        "webhook_secret": "whsec_" + "QUJD" * 8,
        "webhook_events": ["call.ended"],
    }
    assert set(examples) == set(NumberConfig.model_fields) - {"number", "then"}
    sections = TwilioConfig(), WhisperConfig(), WebhookConfig(), TranscriptConfig()
    for key, value in examples.items():
        entry = NumberConfig.model_validate({"number": "+15551234567", key: value})
        assert entry.applied_to(*sections) != sections, key
    assert NumberConfig(number="+15551234567", language=None).applied_to(*sections) == sections


def test_the_first_auth_token_is_the_one_that_is_used() -> None:
    assert TwilioConfig().own_token == ""
    for given in ("only", ["only"], ["only", "older"]):
        assert TwilioConfig.model_validate({"auth_token": given}).own_token == "only"
    assert "older" not in repr(TwilioConfig.model_validate({"auth_token": ["only", "older"]}))
