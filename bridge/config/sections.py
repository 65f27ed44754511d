"""The sections of the configuration: each key with its type and default."""

import os
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from bridge.config.call_flow import CallFlow, Then
from bridge.config.values import (
    BaseUrl,
    Decimal,
    Directory,
    Events,
    EventType,
    Host,
    Language,
    ModelId,
    Networks,
    OutboxUrl,
    PhoneNumber,
    Reasons,
    Redactions,
    Switch,
    Token,
    Tokens,
    WebhookSecrets,
    WebhookUrl,
    WhisperUrl,
    Whole,
)

Mode = Literal["start", "connect"]
Tracks = Literal["inbound", "outbound", "both"]
Dialect = Literal["auto", "v1", "seed"]

DEFAULT_WHISPER_URL = "ws://127.0.0.1:9090/websocket"
"""Where `whisper-bridge whisper` listens when it is told nothing else."""

MOST_WORKERS: Final = 64
"""As many as `server.workers` may be, also when it is 0 on a larger machine."""

DEFAULT_EVENTS: tuple[EventType, ...] = (
    "call.started",
    "transcript.final",
    "transcript.gap",
    "transcript.late",
    "call.dtmf",
    "call.ended",
)


class Section(BaseModel):
    """A table of the file: its keys cannot change once read, and no others are known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True, protected_namespaces=()
    )


class ServerConfig(Section):
    """Where the bridge listens, and how the world reaches it."""

    host: Host = "127.0.0.1"
    port: Annotated[Whole, Field(ge=0, le=65535)] = 8080
    public_url: BaseUrl = ""
    workers: Annotated[Whole, Field(ge=0, le=MOST_WORKERS)] = 1
    drain_deadline_s: Annotated[Decimal, Field(ge=0)] = 3600
    max_calls: Annotated[Whole, Field(ge=0)] = 0
    trusted_proxies: Networks = []
    admin_token: Token = SecretStr("")

    @property
    def processes(self) -> int:
        """How many processes take calls: `workers`, or one for each processor that this one may use, 64 at most."""
        if self.workers:
            return self.workers
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(usable, MOST_WORKERS)

    @model_validator(mode="after")
    def _one_call_each(self) -> "ServerConfig":
        if 0 < self.max_calls < self.processes:
            raise PydanticCustomError(
                "bridge", "must be 0, or at least 1 for each of server.workers", {"key": "max_calls"}
            )
        return self


class TwilioConfig(Section):
    """The Twilio account, and how its calls are streamed."""

    account_sid: str = ""
    auth_token: Tokens = ()
    verify_signatures: Switch = True
    api_base_url: BaseUrl = ""
    mode: Mode = "start"
    tracks: Tracks = "both"
    max_speed: Annotated[Decimal, Field(ge=1)] = 4

    @property
    def own_token(self) -> str:
        """What is used where only one token can be: the first; empty if there is none."""
        return self.auth_token[0].get_secret_value() if self.auth_token else ""


class VadConfig(Section):
    """When speech begins and ends, in the words of Baseten's `streaming_vad_config`."""

    threshold: Annotated[Decimal, Field(ge=0, le=1)] = 0.5
    min_silence_duration_ms: Annotated[Whole, Field(ge=0)] = 300
    speech_pad_ms: Annotated[Whole, Field(ge=0)] = 30


class WhisperConfig(Section):
    """The streaming Whisper endpoint, and what it is asked to do."""

    url: WhisperUrl = DEFAULT_WHISPER_URL
    model_id: ModelId = ""
    api_key: Token = SecretStr("")
    dialect: Dialect = "auto"
    language: Language = "en"
    partials: Switch = False
    fallback_url: WhisperUrl = ""
    prompt: str = ""
    replay_speed: Annotated[Decimal, Field(gt=1, le=2)] = 1.5
    max_connections: Annotated[Whole, Field(ge=0)] = 0
    vad: VadConfig = VadConfig()

    @model_validator(mode="after")
    def _one_endpoint(self) -> "WhisperConfig":
        if self.model_id and self.url not in {"", DEFAULT_WHISPER_URL}:
            raise PydanticCustomError(
                "bridge", "and whisper.url name two endpoints: keep one of them", {"key": "model_id"}
            )
        if not self.model_id and not self.url:
            raise PydanticCustomError("bridge", "must not be empty unless model_id is set", {"key": "url"})
        return self

    @property
    def endpoint_url(self) -> str:
        """The WebSocket to connect to: `url`, or Baseten's production address of `model_id`."""
        if self.model_id:
            return f"wss://model-{self.model_id}.api.baseten.co/environments/production/websocket"
        return self.url


class TranscriptConfig(Section):
    """What becomes of the text before anybody gets it."""

    drop_suspect: Reasons = []
    redact: Redactions = []


class WebhookConfig(Section):
    """Who is told what was said, and the secret that proves it was us."""

    url: WebhookUrl = ""
    secret: WebhookSecrets = ()
    events: Events = list(DEFAULT_EVENTS)
    allow_private_networks: Networks = []


def _default_outbox_url() -> SecretStr:
    """A directory of the user's own, by the XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    try:
        directory = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:
        return SecretStr("")  # a user without a home directory has to name one
    return SecretStr(f"sqlite://{directory / 'whisper-bridge'}")


class OutboxConfig(Section):
    """Where events are kept until they are delivered."""

    url: OutboxUrl = Field(default_factory=_default_outbox_url)
    accept_loss: Switch = False
    keep_bodies_h: Annotated[Decimal, Field(ge=0)] = 24
    keep_rows_d: Annotated[Decimal, Field(ge=2)] = 30  # counted from a call's beginning: it may last a day

    @property
    def shared(self) -> bool:
        """Whether it is in PostgreSQL, where many bridges write it."""
        return not self.url.get_secret_value().startswith("sqlite:")

    @property
    def directory(self) -> Path:
        """The absolute directory that `url` names. Raises `ValueError` if the outbox is `shared`."""
        if self.shared:
            raise ValueError("An outbox in PostgreSQL has no directory.")
        return Path("/" + self.url.get_secret_value().removeprefix("sqlite://").lstrip("/"))


class JournalConfig(Section):
    """Where audio is kept until it is understood."""

    path: Directory = ""


_SECTIONS = {"mode": "twilio", "tracks": "twilio", "drop_suspect": "transcript", "redact": "transcript"}
"""Where the keys of a number belong that do not begin with their section's name; the others are Whisper's."""


class NumberConfig(Section):
    """One telephone number: its call flow, and what differs from the sections for it."""

    number: PhoneNumber
    then: Then = CallFlow()
    mode: Mode | None = None
    tracks: Tracks | None = None
    language: Language | None = None
    partials: Switch | None = None
    dialect: Dialect | None = None
    prompt: str | None = None
    vad: VadConfig | None = None
    whisper_url: WhisperUrl | None = None
    whisper_model_id: ModelId | None = None
    whisper_api_key: Token | None = None
    whisper_fallback_url: WhisperUrl | None = None
    drop_suspect: Reasons | None = None
    redact: Redactions | None = None
    webhook_url: WebhookUrl | None = None
    webhook_secret: WebhookSecrets | None = None
    webhook_events: Events | None = None

    @model_validator(mode="after")
    def _one_endpoint(self) -> "NumberConfig":
        if self.whisper_model_id and self.whisper_url:
            raise PydanticCustomError(
                "bridge", "and whisper_url name two endpoints: keep one of them", {"key": "whisper_model_id"}
            )
        return self

    def applied_to(
        self,
        twilio: TwilioConfig,
        whisper: WhisperConfig,
        webhook: WebhookConfig,
        transcript: TranscriptConfig,
    ) -> tuple[TwilioConfig, WhisperConfig, WebhookConfig, TranscriptConfig]:
        """The sections as they are for this number."""
        changes: dict[str, dict[str, object]] = {
            section: {} for section in ("twilio", "whisper", "webhook", "transcript")
        }
        for name in self.model_fields_set - {"number", "then", "vad"}:
            value = getattr(self, name)
            if value is None:
                continue
            section, _, key = name.partition("_")
            if section not in changes:
                section, key = _SECTIONS.get(name, "whisper"), name
            changes[section][key] = value
        if self.vad is not None:
            vad = {name: getattr(self.vad, name) for name in self.vad.model_fields_set}
            changes["whisper"]["vad"] = whisper.vad.model_copy(update=vad)
        # The number's own endpoint replaces the other spelling of the section's.
        if self.whisper_model_id:
            changes["whisper"]["url"] = DEFAULT_WHISPER_URL
        elif self.whisper_url:
            changes["whisper"]["model_id"] = ""
        return (
            twilio.model_copy(update=changes["twilio"]),
            whisper.model_copy(update=changes["whisper"]),
            webhook.model_copy(update=changes["webhook"]),
            transcript.model_copy(update=changes["transcript"]),
        )
