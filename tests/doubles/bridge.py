"""A whole bridge in the test's own event loop, between Twilio's double and a webhook receiver."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.audio.voice import Probability
from bridge.config import Config
from bridge.local.receiver import Received, Receiver
from bridge.local.twilio.account import Account
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.script import Script
from bridge.serve import Bridge, opened
from tests.doubles.numbered import sounds

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PUBLIC_URL = "https://bridge.example.com"
ACCOUNT = Account("AC" + "2" * 32, "an-auth-token")


@dataclass
class Setup:
    """The bridge, who calls it, and who hears from it."""

    bridge: Bridge
    receiver: Receiver
    directory: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.bridge.port}"

    def call(self, audio: dict[str, bytes], script: Script | None = None, **options: Any) -> SimulatedCall:
        """A call to this bridge."""
        options.setdefault("public_url", PUBLIC_URL)
        return SimulatedCall(ACCOUNT, f"{self.url}/twilio/voice", audio, script, **options)  # type: ignore[arg-type]  # literals

    async def ended(self, call_sid: str, timeout: float = 20) -> list[Received]:
        """Every event of a call, once its last one has come."""
        await self.receiver.wait_for(lambda r: r.type == "call.ended" and r.call_sid == call_sid, timeout)
        return [r for r in self.receiver.received if r.call_sid == call_sid]


def settings(
    directory: Path,
    whisper_url: str,
    webhook_url: str,
    *,
    replay_speed: float = 100.0,
    **sections: dict[str, Any],
) -> Config:
    """A configuration for tests; `sections` override keys.

    Simulated calls may run many times faster than real ones, and so must what is sent: `replay_speed` may be
    more than a real configuration allows.
    """
    values: dict[str, dict[str, Any]] = {
        "server": {"port": 0, "public_url": PUBLIC_URL, "max_calls": 1000},
        "twilio": {
            "account_sid": ACCOUNT.sid,
            "auth_token": ACCOUNT.auth_token,
            "api_base_url": "http://127.0.0.1:9",  # nobody is there
            "max_speed": 1000,
        },
        "whisper": {"url": whisper_url},
        "webhook": {"url": webhook_url, "secret": SECRET, "allow_private_networks": ["127.0.0.0/8"]},
        "outbox": {"url": f"sqlite://{directory / 'outbox'}"},
    }
    numbers: Any = sections.pop("numbers", [])
    for section, changes in sections.items():
        values.setdefault(section, {}).update(changes)
    config = Config.model_validate({**values, "numbers": numbers})
    whisper = config.whisper.model_copy(update={"replay_speed": replay_speed})
    return config.model_copy(update={"whisper": whisper})


@asynccontextmanager
async def running(
    directory: Path,
    whisper_url: str,
    *,
    detector: Callable[[], Probability] = lambda: sounds,
    **sections: Any,
) -> AsyncIterator[Setup]:
    """A bridge that listens, and a receiver of its webhooks. For it every sound is speech, as the numbered words are."""
    async with (
        Receiver(SECRET) as receiver,
        opened(settings(directory, whisper_url, receiver.url, **sections), detector) as bridge,
    ):
        yield Setup(bridge, receiver, directory)
