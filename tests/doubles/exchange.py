"""An account with telephone numbers, and who attaches them: the real outbox, and Twilio's double."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Config
from bridge.local.twilio.rest import RestApi
from bridge.numbers.account import Account
from bridge.numbers.numbers import Numbers
from bridge.outbox.sqlite import Sqlite
from bridge.twilio.rest import TwilioRest
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL

OURS = f"{PUBLIC_URL}/twilio/voice"
HANDLER = "https://user:word@voice.example.com/ivr?flow=a&secret=7"
FALLBACK = "https://voice.example.com/sorry"


@dataclass
class Exchange:
    """The parts; `numbers` is one operator of many."""

    api: RestApi
    outbox: Sqlite
    rest: TwilioRest
    config: Config

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.config, self.outbox, self.rest)

    def has(self, number: str) -> dict[str, Any]:
        """What Twilio has of a number, as far as its calls are concerned."""
        return {name: value for name, value in self.api.numbers.of(number).items() if "voice_" in name}


def configured(api: RestApi, **server: Any) -> Config:
    return Config.model_validate(
        {
            "server": {"public_url": PUBLIC_URL} | server,
            "twilio": {
                "account_sid": ACCOUNT.sid,
                "auth_token": ACCOUNT.auth_token,
                "api_base_url": api.url,
            },
        }
    )


@asynccontextmanager
async def exchange(directory: Path) -> AsyncIterator[Exchange]:
    outbox = Sqlite(directory / "outbox")
    await outbox.open()
    try:
        async with RestApi(ACCOUNT) as api, TwilioRest(configured(api).twilio) as rest:
            yield Exchange(api, outbox, rest, configured(api))
    finally:
        await outbox.close()


class KilledError(Exception):
    """The process ended here."""


@contextmanager
def killed(step: int, *, done: bool) -> Iterator[Callable[[], bool]]:
    """Ends whoever changes something for the `step`-th time (from 0), before or (`done`) after it happened.

    Gives a function that says whether somebody got so far.
    """
    left = step
    hit = False

    def dying(change: Callable[..., Any]) -> Callable[..., Any]:
        async def changed(*arguments: Any) -> Any:
            nonlocal left, hit
            left -= 1
            if left != -1:
                return await change(*arguments)
            hit = True
            if done:
                await change(*arguments)
            raise KilledError

        return changed

    with pytest.MonkeyPatch.context() as patch:
        for kind, name in ((Sqlite, "attach"), (Sqlite, "detach"), (Account, "update")):
            patch.setattr(kind, name, dying(getattr(kind, name)))
        yield lambda: hit
