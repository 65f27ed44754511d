"""The configuration: one TOML file and the environment, read once into frozen sections."""

from bridge.config.call_flow import CallFlow
from bridge.config.config import Config, NumberSettings, is_loopback
from bridge.config.load import load
from bridge.config.sections import (
    JournalConfig,
    NumberConfig,
    OutboxConfig,
    ServerConfig,
    TranscriptConfig,
    TwilioConfig,
    VadConfig,
    WebhookConfig,
    WhisperConfig,
)

__all__ = [
    "CallFlow",
    "Config",
    "JournalConfig",
    "NumberConfig",
    "NumberSettings",
    "OutboxConfig",
    "ServerConfig",
    "TranscriptConfig",
    "TwilioConfig",
    "VadConfig",
    "WebhookConfig",
    "WhisperConfig",
    "is_loopback",
    "load",
]
