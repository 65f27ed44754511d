"""Questions and answers between a supervisor and a worker, over a socketpair: whose end is the other one's death."""

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from socket import socket
from typing import Any, Final

import msgspec

from bridge import log
from bridge.errors import BridgeError
from bridge.workers.company import ASK_S, Answer

LONGEST: Final = 1 << 24
"""Bytes of one message; figures of a busy worker have some ten thousand."""

WAITING: Final = 1 << 20
"""Bytes that may wait for a worker that does not read, before it is told no more."""

FLUSH_S: Final = 1.0
"""How long the last words may take to be read."""

_SIZE: Final = 4

_logger = log.get(__name__)


class Lost(BridgeError):  # noqa: N818 - says what happened
    """The other end is gone, or stands still."""


class _Message(msgspec.Struct, array_like=True):
    number: int
    """Of the question; 0: nobody waits for an answer."""
    what: str
    """Empty: an answer."""
    about: Any = None


class Line:
    """One end. `answers` are what is answered here, by the kind of question. `run` is its task."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self.answers = dict(answers)
        self.garbled = False
        """What the other end said could not be read, and was the last that was heard of it."""
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self, end: socket) -> None:
        """Take one end of a connected pair over."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=end)

    async def run(self) -> None:
        """Listen until the other end is gone, or cannot be understood."""
        decoder = msgspec.msgpack.Decoder(_Message)
        try:
            while True:
                self._take(decoder.decode(await self._body()))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except (msgspec.DecodeError, RecursionError) as error:  # the latter of what is too deep
            self.garbled = True
            _logger.error("worker_not_understood", error=str(error))
        finally:
            self._writer.transport.abort()
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(Lost("the other process is gone"))
                    asked.exception()  # nobody may be waiting any more

    async def _body(self) -> bytes:
        size = int.from_bytes(await self._reader.readexactly(_SIZE), "big")
        if size > LONGEST:
            raise msgspec.DecodeError(f"{size} bytes are no message")
        return await self._reader.readexactly(size)

    async def close(self) -> None:
        """Hang up, when what was said last has gone."""
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._writer.wait_closed()
        self._writer.transport.abort()

    def tell(self, what: str, about: Any = None) -> bool:
        """Say something that needs no answer; False if it cannot be said now."""
        return self._send(_Message(0, what, about))

    async def ask(self, what: str, about: Any = None, *, timeout_s: float = ASK_S) -> Any:
        """Ask, and wait for the answer. Raises `Lost`, also for an end that does not answer."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            if not self._send(_Message(number, what, about)):
                raise Lost("the other process does not read")
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise Lost(f"the other process has not answered within {timeout_s:.0f} s") from None
        finally:
            del self._asked[number]

    def _send(self, message: _Message) -> bool:
        transport = self._writer.transport
        if transport.is_closing() or transport.get_write_buffer_size() > WAITING:
            return False
        body = msgspec.msgpack.encode(message)
        if len(body) > LONGEST:
            _logger.error("worker_message_too_long", question=message.what, size=len(body))
            return False
        self._writer.write(len(body).to_bytes(_SIZE, "big") + body)
        return True

    def _take(self, message: _Message) -> None:
        if message.what:
            task = asyncio.create_task(self._answer(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (asked := self._asked.get(message.number)) is not None and not asked.done():
            asked.set_result(message.about)

    async def _answer(self, message: _Message) -> None:
        said = None
        try:
            if (answer := self.answers.get(message.what)) is not None:
                said = await answer(message.about)
        except BridgeError as error:
            _logger.warning("worker_not_answered", question=message.what, error=str(error))
        except Exception:  # one question must not end the line
            _logger.exception("worker_answer_failed", question=message.what)
        if message.number:
            self._send(_Message(message.number, "", said))
