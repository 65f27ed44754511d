"""The whole configuration, what must hold between its sections, and its view for one number."""

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from bridge.config.call_flow import CallFlow, leads_to
from bridge.config.sections import (
    JournalConfig,
    NumberConfig,
    OutboxConfig,
    Section,
    ServerConfig,
    TranscriptConfig,
    TwilioConfig,
    WebhookConfig,
    WhisperConfig,
)
from bridge.config.values import FROM_LIST
from bridge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class NumberSettings:
    """What holds for one telephone number: the sections with that number's own values in them."""

    number: str
    then: CallFlow
    twilio: TwilioConfig
    whisper: WhisperConfig
    webhook: WebhookConfig
    transcript: TranscriptConfig

    def listening(self) -> Self:
        """The same for a stream beside the call flow: in mode "start", with the tracks that the mode would have."""
        tracks = "inbound" if self.twilio.mode == "connect" else self.twilio.tracks
        return replace(self, twilio=self.twilio.model_copy(update={"mode": "start", "tracks": tracks}))


class Config(Section):
    """Everything that the bridge is told before it starts. Read it with `bridge.config.load`."""

    server: ServerConfig = ServerConfig()
    twilio: TwilioConfig = TwilioConfig()
    whisper: WhisperConfig = WhisperConfig()
    transcript: TranscriptConfig = TranscriptConfig()
    webhook: WebhookConfig = WebhookConfig()
    outbox: OutboxConfig = Field(default_factory=OutboxConfig)
    journal: JournalConfig = JournalConfig()
    numbers: Annotated[list[NumberConfig], FROM_LIST] = Field(default_factory=list)

    # Says where a key was set, for errors that are found after reading: "bridge.toml line 3: " or "".
    _where: Callable[[str], str] = PrivateAttr(default_factory=lambda: _unknown_place)

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if not self.twilio.verify_signatures and not is_loopback(self.server.host):
            raise PydanticCustomError(
                "bridge",
                "= false is refused unless server.host is a loopback address",
                {"key": "twilio.verify_signatures"},
            )
        if self.outbox.shared and not self.journal.path:
            raise PydanticCustomError(
                "bridge",
                "must be set when outbox.url is PostgreSQL: audio waits on a disk of this machine",
                {"key": "journal.path"},
            )
        if 0 < self.whisper.max_connections < 2 * self.server.processes and self.server.processes > 1:
            raise PydanticCustomError(
                "bridge",
                "must be 0, or at least 2 for each of server.workers: a call has two tracks",
                {"key": "whisper.max_connections"},
            )
        seen: set[str] = set()
        for index, entry in enumerate(self.numbers):
            if entry.number in seen:
                raise PydanticCustomError(
                    "bridge", "names a number that stands here already", {"key": f"numbers.{index}.number"}
                )
            seen.add(entry.number)
            if leads_to(entry.then.url, self.server.public_url):
                raise PydanticCustomError(
                    "bridge",
                    "leads back to this bridge: calls would go round in circles",
                    {"key": f"numbers.{index}.then"},
                )
        for key, settings in self._every_settings("twilio.tracks", "tracks"):
            if settings.twilio.mode == "connect" and settings.twilio.tracks == "outbound":
                raise PydanticCustomError(
                    "bridge",
                    'cannot be "outbound" in mode "connect": it carries inbound audio only',
                    {"key": key},
                )
        return self

    def __getstate__(self) -> dict[Any, Any]:
        """What a worker gets: all but where a key was set, which only errors before the start need."""
        return {**super().__getstate__(), "__pydantic_private__": {"_where": _unknown_place}}

    @property
    def journal_directory(self) -> Path:
        """Where the audio journals lie: `journal.path`, or `journal` inside the outbox's directory."""
        return Path(self.journal.path) if self.journal.path else self.outbox.directory / "journal"

    def public_url(self, port: int) -> str:
        """What Twilio calls a bridge that listens on `port`."""
        return self.server.public_url or f"http://{self.server.host}:{port}"

    def for_number(self, number: str) -> NumberSettings:
        """The settings of `number` (as Twilio's `To` has it); the sections as they are if it is not listed."""
        sections = self.twilio, self.whisper, self.webhook, self.transcript
        for entry in self.numbers:
            if entry.number == number:
                return NumberSettings(number, entry.then, *entry.applied_to(*sections))
        return NumberSettings(number, CallFlow(), *sections)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences about what works but is probably not wanted, for the log."""
        found: list[str] = []
        for key, settings in self._every_settings("whisper.url", "whisper_url"):
            whisper = settings.whisper
            for url in (whisper.endpoint_url, whisper.fallback_url):
                parts = urlsplit(url)
                if (
                    parts.scheme == "ws"
                    and whisper.api_key.get_secret_value()
                    and not is_loopback(parts.hostname or "")
                ):
                    found.append(f"{key}: the API key travels unencrypted over ws://; use wss://")
        if not self.twilio.verify_signatures:
            found.append("twilio.verify_signatures = false: anyone on this machine may pose as Twilio")
        public = urlsplit(self.server.public_url)
        if public.scheme == "http" and not is_loopback(public.hostname or ""):
            found.append(
                "server.public_url: Twilio streams to wss:// only, so it must be https:// for real calls"
            )
        return tuple(dict.fromkeys(found))

    def require_serving(self) -> None:
        """Make sure that nothing is missing for taking calls.

        Raises `ConfigError`, one sentence for each thing that is missing or not allowed.
        """
        problems = [f"{self._where(key)}{key} {sentence}" for key, sentence in self._missing()]
        problems += [f"{self._where(key)}{key}: {sentence}" for key, sentence in self._forbidden()]
        if problems:
            raise ConfigError("\n".join(dict.fromkeys(problems)))

    def _missing(self) -> Iterator[tuple[str, str]]:
        """Pairs of a key and what it is for."""
        verified = self.twilio.verify_signatures
        if verified and not self.twilio.account_sid:
            yield "twilio.account_sid", "is not set (or the environment variable TWILIO_ACCOUNT_SID)"
        if verified and not self.twilio.own_token:
            yield "twilio.auth_token", "is not set (or the environment variable TWILIO_AUTH_TOKEN)"
        if not self.server.public_url and (verified or not is_loopback(self.server.host)):
            yield "server.public_url", "is not set: the https:// address at which Twilio reaches this bridge"
        for key, settings in self._receiving("webhook.url", "webhook_url"):
            if not settings.webhook.url:
                yield key, "is not set: the address that gets the transcripts"
        for key, settings in self._receiving("webhook.secret", "webhook_secret"):
            if not settings.webhook.secret:
                yield key, "is not set (or the environment variable BRIDGE_WEBHOOK_SECRET)"

    def _forbidden(self) -> Iterator[tuple[str, str]]:
        """Pairs of a webhook's key and why nothing would be posted to it, as far as its text tells."""
        from bridge.webhook.target import TargetRefused, Targets  # noqa: PLC0415 - only who serves needs aiohttp

        targets = Targets(self.webhook.allow_private_networks)
        for key, settings in self._receiving("webhook.url", "webhook_url"):
            try:
                if settings.webhook.url:
                    targets.check_url(settings.webhook.url)
            except TargetRefused as refused:
                yield key, str(refused)

    def _receiving(self, key: str, own_key: str) -> Iterator[tuple[str, NumberSettings]]:
        """Whose webhook is used. The section's may be left out when every number has its own."""
        every = self._every_settings(key, own_key)
        section = next(every)
        if self.webhook.url or not self.numbers:
            yield section
        yield from every

    def _every_settings(self, key: str, own_key: str) -> Iterator[tuple[str, NumberSettings]]:
        """The sections themselves, then as each number has them; each with the key that decides there."""
        yield key, self.for_number("")
        for index, entry in enumerate(self.numbers):
            own = getattr(entry, own_key) is not None
            yield f"numbers[{index}].{own_key}" if own else key, self.for_number(entry.number)


def _unknown_place(_key: str) -> str:
    return ""


def is_loopback(host: str) -> bool:
    """Whether `host` can only mean this machine: `localhost`, 127.0.0.0/8, `::1`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
