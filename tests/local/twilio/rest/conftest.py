import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.local.twilio.account import Account
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest import Line, RestApi
from bridge.local.twilio.script import Script
from tests.doubles.strict_bridge import PUBLIC, TOKEN, StrictBridge
from tests.doubles.twilio_client import TwilioClient

ACCOUNT = Account("AC22222222222222222222222222222222", TOKEN)


class World:
    """The API, the library's client, and a bridge that calls reach."""

    def __init__(self, api: RestApi, bridge: StrictBridge) -> None:
        self.api, self.bridge = api, bridge
        self.twilio = TwilioClient(ACCOUNT, api)

    def line(self, frames: int = 2000, **script: Any) -> Line:
        """At twenty times real time."""
        audio: Any = {"inbound": b"".join(bytes([n % 256]) * 160 for n in range(frames))}
        return Line(self.bridge.url, PUBLIC, audio, Script(**{"speed": 20, **script}))

    @asynccontextmanager
    async def ringing(
        self, frames: int = 2000, streams: int = 1
    ) -> AsyncIterator[tuple[SimulatedCall, asyncio.Task[Any]]]:
        """A call that streams; it is hung up in the end."""
        line = self.line(frames)
        call = SimulatedCall(ACCOUNT, self.bridge.voice_url, line.audio, line.script, public_url=PUBLIC)
        task = asyncio.create_task(self.api.add(call).run())
        await streaming(call, streams)
        yield call, task
        call.hang_up()
        await task


async def streaming(call: SimulatedCall, streams: int = 1) -> None:
    async with asyncio.timeout(5):
        while len(call.report.streams) < streams or (streams and not call.report.streams[-1].frames):
            await asyncio.sleep(0.005)


async def becomes(call: SimulatedCall, status: str) -> None:
    async with asyncio.timeout(5):
        while call.status != status:
            await asyncio.sleep(0.005)


@pytest.fixture
async def world(bridge: StrictBridge) -> AsyncIterator[World]:
    async with RestApi(ACCOUNT) as api:
        yield World(api, bridge)
