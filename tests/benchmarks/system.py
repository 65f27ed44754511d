"""The systems that are compared, as processes: the floor, the tutorial's bridge and the bridge itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.local.twilio import Account
from tests.benchmarks.child import Child
from tests.doubles.tls_proxy import CERTIFICATE

PUBLIC_URL: Final = "https://bridge.example.com"
"""The bridge serves nobody without one; requests are signed for it and sent to 127.0.0.1."""

NAMES: Final = ("floor", "tutorial", "bridge")
"""The floor comes first: what the others cost is told as a ratio to it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is the same for all of them."""

    account: Account
    secret: str
    whisper_url: str
    webhook_url: str
    both_tracks: bool
    directory: Path


@dataclass(frozen=True, slots=True)
class System:
    """A process that takes calls and forwards them to Whisper."""

    name: str
    child: Child
    setting: Setting

    @property
    def voice_url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.child.port}/twilio/voice"

    @property
    def public_url(self) -> str | None:
        """What it calls itself; None: what it is."""
        return PUBLIC_URL if self.name == "bridge" else None


def system(name: str, setting: Setting, cpus: set[int]) -> System:
    """One of `NAMES`, to be started."""
    trust = {"SSL_CERT_FILE": str(CERTIFICATE)} if setting.whisper_url.startswith("wss") else {}
    if name == "bridge":
        config = setting.directory / "bridge.toml"
        config.write_text(_config(setting))
        arguments = ["bridge", "serve", "--config", str(config)]
    else:
        track = "both_tracks" if setting.both_tracks else "inbound_track"
        arguments = [f"tests.benchmarks.{name}", setting.whisper_url, track, setting.webhook_url]
    return System(name, Child(*arguments, cpus=cpus, environment=trust), setting)


def _config(setting: Setting) -> str:
    return f"""
        [server]
        port = 0
        public_url = "{PUBLIC_URL}"
        max_calls = 2000
        [twilio]
        account_sid = "{setting.account.sid}"
        auth_token = "{setting.account.auth_token}"
        verify_signatures = true
        tracks = "{"both" if setting.both_tracks else "inbound"}"
        [whisper]
        url = "{setting.whisper_url}"
        max_connections = 4000
        [webhook]
        url = "{setting.webhook_url}"
        secret = "{setting.secret}"
        allow_private_networks = ["127.0.0.0/8"]
        [outbox]
        url = "sqlite://{setting.directory}/outbox"
    """
