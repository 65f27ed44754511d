"""The server's end of one recogniser process: starts it, asks it, hears it, and notices its death."""

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Self

from bridge.errors import BridgeError
from bridge.local.whisper.wire import HEADER, Ask, Tell, pack

if TYPE_CHECKING:
    from bridge.local.whisper.sphinx import SphinxUtterance

START_TIMEOUT_S = 30.0
"""A decoder takes 0.4 s to load from a warm disk."""

EXIT_TIMEOUT_S = 2.0


class Worker:
    """One process and the utterances that have a decoder of it."""

    def __init__(self, process: asyncio.subprocess.Process, decoders: int) -> None:
        assert process.stdin is not None  # noqa: S101 - both are pipes, see `start`
        assert process.stdout is not None  # noqa: S101
        self._process = process
        self._asked = process.stdin
        self._answers = process.stdout
        self._decoders = decoders
        self.utterances: dict[int, SphinxUtterance] = {}
        """By number. Each has a decoder from when it is asked to open until its final is told, or it is dropped."""

    @classmethod
    async def start(cls, decoders: int) -> Self:
        """Start a process and wait until its decoders are loaded. Raises `BridgeError`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a folder named `bridge` where the user happens to be is not ours
            "-m",
            "bridge.local.whisper.sphinx_process",
            str(decoders),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the server's to handle
        )
        worker = cls(process, decoders)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                told = await worker.told()
        except BaseException as error:
            await worker.close()
            if isinstance(error, TimeoutError):
                raise BridgeError(f"its process was not ready after {START_TIMEOUT_S:.0f} s") from error
            raise
        if told is None or told[0] != Tell.READY:
            status = await worker.close()
            raise BridgeError(told[2].decode() if told else f"its process ended with status {status}")
        return worker

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def free(self) -> int:
        """Decoders that nobody has."""
        return self._decoders - len(self.utterances)

    def ask(self, kind: Ask, utterance: int, payload: bytes = b"") -> None:
        """Ask something; never blocks. At most 30 s of audio for each decoder (2 MB) can pile up.

        Asking a dead process does nothing: whoever awaits `told` learns of its death.
        """
        if not self._asked.is_closing():
            self._asked.write(pack(kind, utterance, payload))

    async def told(self) -> tuple[int, int, bytes] | None:
        """The next answer: kind, utterance, payload. None once the process is dead."""
        try:
            kind, utterance, length = HEADER.unpack(await self._answers.readexactly(HEADER.size))
            return kind, utterance, await self._answers.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def close(self) -> int:
        """End the process, by force if it does not go; its exit status."""
        self._asked.close()
        try:
            async with asyncio.timeout(EXIT_TIMEOUT_S):
                status = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            status = await self._process.wait()
        # It may have died with something still unread, which its death has lost already.
        with contextlib.suppress(ConnectionError):
            await self._asked.wait_closed()
        return status
