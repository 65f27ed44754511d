"""`whisper-bridge serve` as a process of its own, which can be killed and started again on the same directory."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET


@dataclass(frozen=True)
class Around:
    """What a bridge is started with."""

    directory: Path
    whisper_url: str
    webhook_url: str
    server: str = ""
    """More lines of `[server]`."""
    twilio: str = ""
    """More lines of `[twilio]`."""
    port: int = 0
    whisper: str = ""
    """More lines of `[whisper]`."""
    outbox_url: str = ""
    """Of a store that is shared; default: SQLite below `directory`."""
    max_calls: int = 1000

    def config(self) -> Path:
        """The configuration, written to a file."""
        path = self.directory / "bridge.toml"
        outbox_url = self.outbox_url or f"sqlite://{self.directory}/outbox"
        path.write_text(f"""
            [server]
            port = {self.port}
            public_url = "{PUBLIC_URL}"
            max_calls = {self.max_calls}
            {self.server}
            [twilio]
            account_sid = "{ACCOUNT.sid}"
            auth_token = "{ACCOUNT.auth_token}"
            max_speed = 1000
            {self.twilio}
            [whisper]
            url = "{self.whisper_url}"
            {self.whisper}
            [webhook]
            url = "{self.webhook_url}"
            secret = "{SECRET}"
            allow_private_networks = ["127.0.0.0/8"]
            [outbox]
            url = "{outbox_url}"
            [journal]
            path = "{self.directory}/outbox/journal"
        """)
        return path


class Process:
    """One life of the bridge."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        """What it has logged."""
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def line(self, event: str, timeout: float = 20) -> dict[str, Any]:
        """The first log line of that name, past or future."""
        try:
            async with asyncio.timeout(timeout), self._changed:
                while True:
                    if found := [line for line in self.lines if line["event"] == event]:
                        return found[0]
                    assert not self._reading.done(), f"it ended without {event}: {self.lines}"
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"no line {event}: {self.lines}") from None

    async def port(self) -> int:
        """Where it listens, once it does."""
        return int((await self.line("listening"))["port"])

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def kill(self) -> None:
        """End it as nothing can be prepared for."""
        self.process.kill()
        await self.exit()

    async def exit(self, timeout: float = 10) -> int:
        """Its exit code, once it has ended."""
        async with asyncio.timeout(timeout):
            await self._reading
            return await self.process.wait()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(json.loads(line))
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    async def close(self) -> None:
        """End it if it still runs."""
        if self.process.returncode is None:
            self.process.kill()
        await self.exit()
        self.process._transport.close()  # type: ignore[attr-defined]  # its pipe would warn in a later test


async def started(around: Around) -> Process:
    """A bridge that was started, and is to be closed; it may not listen yet."""
    command = (sys.executable, "-m", "bridge", "serve", "--config", str(around.config()))
    return Process(await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE))


@asynccontextmanager
async def serving(around: Around) -> AsyncIterator[Process]:
    """The same, closed in the end."""
    process = await started(around)
    try:
        yield process
    finally:
        await process.close()
