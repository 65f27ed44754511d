"""Several bridges behind one address, with journals of their own and one store, and the calls that they carry."""

import asyncio
import math
import signal
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self

from bridge.events import Track
from bridge.local.receiver import Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.rest import RestApi
from bridge.local.twilio.script import FRAME_MS
from tests.chaos.port import free_port
from tests.chaos.side import Side, voices
from tests.chaos.stalls import Stalls
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET
from tests.doubles.front import Front
from tests.doubles.numbered import NumberedWhisper
from tests.doubles.postgres import PostgresServer
from tests.doubles.process import Around, Process, started

TRACKS: Final[dict[str, tuple[Track, ...]]] = {"start": ("inbound", "outbound"), "connect": ("inbound",)}
"""What Twilio streams in each mode."""

APART_S: Final = 0.037
"""Between the beginnings of two calls."""

DEFECTS: Final = (
    "call_task_failed",
    "recovery_failed",
    "reaper_failed",
    "tick_source_failed",
    "event_dropped",
)
"""Lines of the log that no fault from outside may cause."""


class Cluster:
    """Bridges of the given names; none is started. `postgres` false: one store for each in SQLite."""

    def __init__(
        self, directory: Path, *names: str, mode: str = "start", postgres: bool = True, server: str = ""
    ) -> None:
        self.whisper = NumberedWhisper()
        self.receiver = Receiver(SECRET)
        self.twilio = RestApi(ACCOUNT)
        self.postgres = PostgresServer(fsync=False) if postgres else None
        self.ports = {name: free_port() for name in names}
        self.front = Front(list(self.ports.values()))
        self.nodes: dict[str, Process] = {}
        """Those that run."""
        self.logged: Counter[str] = Counter()
        """Lines of those that have ended."""
        self.calls: dict[SimulatedCall, asyncio.Task[Any]] = {}
        self.sides: list[Side] = []
        self.url = ""
        """Where Twilio finds them: the front's; a bridge that is alone has none before it."""
        self._directory = directory
        self.mode = mode
        self._server = server
        self._open = AsyncExitStack()
        self._stalls = Stalls(lambda: [node.process.pid for node in self.nodes.values()])
        self._looking: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            for part in (self.whisper, self.receiver, self.twilio, self.front):
                await opening.enter_async_context(part)
            if self.postgres is not None:
                await opening.enter_async_context(self.postgres)
            self._open = opening.pop_all()
        alone = f"http://127.0.0.1:{next(iter(self.ports.values()))}"
        self.url = self.front.url if len(self.ports) > 1 else alone
        self._looking = asyncio.create_task(self._stalls.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self.nodes):
            await self.kill(name)
        for task in self.calls.values():
            task.cancel()
        self._looking.cancel()
        await asyncio.gather(*self.calls.values(), self._looking, return_exceptions=True)
        await self._open.aclose()

    def around(self, name: str) -> Around:
        """What the bridge of that name is started with."""
        directory = self._directory / name
        directory.mkdir(exist_ok=True)
        return Around(
            directory,
            self.whisper.url,
            self.receiver.url,
            server=self._server,
            twilio=f'api_base_url = "{self.twilio.url}"\nmode = "{self.mode}"',
            port=self.ports[name],
            outbox_url="" if self.postgres is None else self.postgres.url,
        )

    async def start(self, *names: str) -> None:
        """Start bridges, and wait until they are ready besides those that run."""
        for name in names:
            self.nodes[name] = await started(self.around(name))
        await self.front.until(*(self.ports[name] for name in self.nodes))

    async def kill(self, name: str) -> None:
        """End a bridge as nothing can be prepared for."""
        node = self.nodes.pop(name)
        await node.close()
        self._note(node)

    async def ended(self, name: str, timeout: float) -> None:
        """Wait for the end of a bridge that was told to end; an AssertionError if it was not in order."""
        node = self.nodes[name]
        try:
            code = await node.exit(timeout)
        except TimeoutError:
            raise AssertionError(f"{name} has not ended: {node.lines[-5:]}") from None
        await self.kill(name)
        assert code == 0, f"{name} ended with {code}: {node.lines[-5:]}"

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal."""
        self.nodes[name].send(number)

    async def call(self, length: int) -> SimulatedCall:
        """One more call, of people who say `length` words each; it comes a moment after the one before it."""
        number = len(self.calls)
        voice = f"{self.url}/twilio/voice"
        call = self.twilio.add(SimulatedCall(ACCOUNT, voice, voices(number, length), public_url=PUBLIC_URL))
        self.sides += Side.of(call, number, length, TRACKS[self.mode])
        self.calls[call] = asyncio.create_task(call.run())
        await asyncio.sleep(APART_S)
        return call

    async def streaming(self, calls: Iterable[SimulatedCall], more_than: int, timeout: float) -> None:
        """Wait until each of them has had more streams than these, and media comes on its latest."""
        waiting = list(calls)
        try:
            async with asyncio.timeout(timeout):
                while waiting := [call for call in waiting if not _streams(call, more_than)]:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(
                f"{len(waiting)} calls were not streamed within {timeout:.0f} s: {self.twilio.asked[-5:]}, "
                f"{[line for node in self.nodes.values() for line in node.lines if _matters(line)][-5:]}"
            ) from None

    async def hang_up(self, calls: Iterable[SimulatedCall], timeout: float) -> None:
        """End calls, and wait until everybody has heard of it."""
        ending = list(calls)
        for call in ending:
            call.hang_up()
        await asyncio.gather(*(self.calls[call] for call in ending))
        for call in ending:
            await self.receiver.wait_for_type("call.ended", timeout, call_sid=call.report.call_sid)

    async def settled(self, sides: Iterable[Side]) -> dict[tuple[str, str], int]:
        """Up to where each track is settled in the store, in ms on the call's clock."""
        assert self.postgres is not None
        rows = await self.postgres.query("select call_sid, track, position from whisper_bridge.watermarks")
        found = {(row["call_sid"], row["track"]): row["position"] // 8 for row in rows}
        return {
            (side.call.report.call_sid, side.track): found.get((side.call.report.call_sid, side.track), 0)
            for side in sides
        }

    @property
    def late_ms(self) -> int:
        """How long this machine stood still, at most: what was sent then, or came then, can have no exacter place."""
        return math.ceil(max(call.report.lateness.max_ms for call in self.calls) + self._stalls.longest_ms)

    def require_sound(self) -> None:
        """Raise an AssertionError if a bridge that has ended logged a defect."""
        for defect in DEFECTS:
            assert not self.logged[defect], f"{self.logged[defect]} times {defect} in the log"

    def _note(self, node: Process) -> None:
        self.logged.update(line["event"] for line in node.lines)


def began_ms(call: SimulatedCall, stream: int) -> int:
    """When the first sample of a stream was sent, by the wall clock, in ms after the call's first one."""
    first_at = call.report.streams[stream].first_at
    assert first_at is not None, "nothing was sent on it"
    return round((first_at - call.report.sent[0]) * 1000)


def went_ms(call: SimulatedCall, stream: int, mode: str) -> int:
    """How far a stream went: what was sent on it, in ms on the call's clock."""
    report = call.report.streams[stream]
    return (report.first_frame + report.frames // len(TRACKS[mode])) * FRAME_MS


def said_ms(call: SimulatedCall) -> int:
    """How long people talked."""
    return len(call.report.sent) * FRAME_MS


def _streams(call: SimulatedCall, more_than: int) -> bool:
    streams = call.report.streams
    return len(streams) > more_than and bool(streams[-1].frames)


def _matters(line: dict[str, Any]) -> bool:
    return line.get("level") in {"warning", "error"}
