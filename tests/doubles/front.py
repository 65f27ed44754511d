"""What stands before several bridges: it leads each connection to one of them that says it is ready.

Below HTTP, as a load balancer may: a connection stays where it was led, and breaks with its bridge.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, Self

import aiohttp

LOOK_S: Final = 0.2
"""How often each bridge is asked whether it is ready."""

ANSWER_S: Final = 1.0
"""Who does not answer within this is not."""

CHUNK: Final = 1 << 16


class Front:
    """Listens at `url` for the bridges on `ports`, which may start and end meanwhile."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ready: dict[int, bool] = dict.fromkeys(ports, False)
        self.favoured = 0
        """The port of the one that is taken while it is ready; 0: each in turn."""
        self.led: list[int] = []
        """The port that each connection was led to, 0 for nobody's."""
        self._turn = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
        for port in self.ready:
            self._spawn(asyncio.create_task(self._watch(port)))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, *ports: int, timeout: float = 20) -> None:
        """Wait until just these are ready."""
        async with asyncio.timeout(timeout):
            while {port for port, ready in self.ready.items() if ready} != set(ports):
                await asyncio.sleep(LOOK_S / 4)

    def _spawn(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, port: int) -> None:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
                        self.ready[port] = answer.status == 200
                except (aiohttp.ClientError, TimeoutError, OSError):
                    self.ready[port] = False
                await asyncio.sleep(LOOK_S)

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._spawn(task)
        with contextlib.closing(writer):
            led = await self._led()
            if led is None:
                return
            there, onward = led
            with contextlib.closing(onward):
                ways = [asyncio.create_task(_pipe(reader, onward)), asyncio.create_task(_pipe(there, writer))]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _led(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection to a bridge that is ready; the next one in turn."""
        ready = [port for port, well in self.ready.items() if well]
        self._turn += 1
        for port in sorted(
            ready, key=lambda port: (port != self.favoured, (ready.index(port) + self._turn) % len(ready))
        ):
            try:
                led = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                self.ready[port] = False
                continue
            self.led.append(port)
            return led
        self.led.append(0)
        return None


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
