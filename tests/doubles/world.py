"""Everything around bridges that are killed, frozen and started anew: Whisper, a receiver, and Twilio with its REST API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.local.receiver import Received, Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest import RestApi
from bridge.local.twilio.script import Script
from bridge.serve import Bridge, opened
from tests.chaos.port import free_port
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET, settings
from tests.doubles.numbered import NumberedWhisper, sounds, speech
from tests.doubles.process import Around


@dataclass
class World:
    """Everything around a bridge that is killed."""

    whisper: NumberedWhisper
    receiver: Receiver
    twilio: RestApi
    around: Around

    def call(self, words: int, script: Script | None = None, **tracks: bytes) -> SimulatedCall:
        audio: Any = {"inbound": speech(range(words)), **tracks}
        voice = f"http://127.0.0.1:{self.around.port}/twilio/voice"
        return self.twilio.add(SimulatedCall(ACCOUNT, voice, audio, script, public_url=PUBLIC_URL))

    async def ended(self, call: SimulatedCall, timeout: float = 20) -> list[Received]:
        """Every event of a call, each once, when its last one has come."""
        call_sid = call.report.call_sid
        await self.receiver.wait_for(lambda r: r.type == "call.ended" and r.call_sid == call_sid, timeout)
        first = {r.webhook_id: r for r in reversed(self.receiver.received) if r.call_sid == call_sid}
        return sorted(first.values(), key=lambda r: r.data["sequence"])

    def bridge(self, **sections: Any) -> AbstractAsyncContextManager[Bridge]:
        """A bridge in this process; to leave it is, for its calls, as if it was killed."""
        around = self.around
        sections = (
            dict[str, Any]()
            | {"server": {"port": around.port}, "twilio": {"api_base_url": self.twilio.url}}
            | sections
        )
        return opened(
            settings(around.directory, self.whisper.url, self.receiver.url, **sections), lambda: sounds
        )

    async def left(self, words: int = 6, *, silent: bool = False, **sections: Any) -> SimulatedCall:
        """A call in whose middle a bridge was left; it is over meanwhile. `silent`: nothing was finalised."""
        self.whisper.mute = set(range(100)) if silent else set()
        call = self.call(200, Script(speed=4))
        async with self.bridge(**sections) as bridge:
            task = asyncio.create_task(call.run())
            await self.receiver.wait_for_type("call.started", call_sid=call.report.call_sid)
            while len(call.report.sent) < words * 13 + words // 4 * 20:
                await asyncio.sleep(0.01)
            while bridge.calls.get(call.report.call_sid) is None:
                await asyncio.sleep(0.01)
        call.hang_up()
        await task
        self.whisper.mute = set()
        return call

    def journals(self) -> list[Path]:
        return list((self.around.directory / "outbox" / "journal").glob("*/CA*"))

    async def emptied(self) -> None:
        """Wait until no audio is left: it goes when `call.ended` is stored, which the receiver may see first."""
        async with asyncio.timeout(10):
            while self.journals():
                await asyncio.sleep(0.01)

    @asynccontextmanager
    async def talking(self, bridge: Bridge, script: Script | None = None) -> AsyncIterator[SimulatedCall]:
        """A call in its midst: something of it is finalised."""
        call = self.call(400, script)
        task = asyncio.create_task(call.run())
        try:
            await self.receiver.wait_for_type("transcript.final", call_sid=call.report.call_sid)
            assert bridge.calls.get(call.report.call_sid)
            yield call
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def world_in(directory: Path) -> AsyncIterator[World]:
    """A world whose bridges keep their things in a directory."""
    async with NumberedWhisper() as whisper, Receiver(SECRET) as receiver, RestApi(ACCOUNT) as twilio:
        base = f'api_base_url = "{twilio.url}"'
        around = Around(directory, whisper.url, receiver.url, twilio=base, port=free_port())
        yield World(whisper, receiver, twilio, around)


def words(events: list[Received], track: str = "inbound") -> list[int]:
    finals = [e.data for e in events if e.type == "transcript.final" and e.data["track"] == track]
    return [int(word[1:]) for final in finals for word in final["text"].split()]


def in_order(events: list[Received]) -> None:
    assert [e.data["sequence"] for e in events] == list(range(1, len(events) + 1))
    assert (events[0].type, events[-1].type) == ("call.started", "call.ended")
    assert all(e.verified for e in events)
    finals = [e.data for e in events if e.type == "transcript.final"]
    lines = [{key: final[key] for key in ("track", "text", "start_ms", "end_ms")} for final in finals]
    assert events[-1].data["transcript"] == sorted(lines, key=lambda line: int(line["start_ms"]))
