"""One client's WebSocket: reads frames into the session and does what the session says."""

import asyncio
import socket
import struct
import time
from typing import Literal

from aiohttp import WSMsgType, web

from bridge.local.whisper import message
from bridge.local.whisper.engine import Engine, EngineError, Utterance
from bridge.local.whisper.faults import Faults
from bridge.local.whisper.session import Action, AskFinal, AskPartial, Close, Feed, Open, Send, Session
from bridge.local.whisper.start import SAMPLE_RATE

SEND_TIMEOUT_S = 10.0
"""A client that reads nothing for so long is disconnected."""

MAX_WAITING = 8
"""Utterances of one client that may wait for their finals; beyond that its socket is not read."""

_FINISHED = message.end_audio("finished")
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: close() sends RST."""


class Connection:
    """A client from its upgrade to its end. `run` owns every task that works for it."""

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        *,
        transport: asyncio.Transport | None,
        session: Session,
        engine: Engine,
        faults: Faults,
        closing: asyncio.Event,
    ) -> None:
        self._websocket = websocket
        self._transport = transport
        self._session = session
        self._engine = engine
        self._faults = faults
        self._closing = closing
        self._utterances: dict[int, Utterance] = {}
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        # Held while one list of actions is done, so that lists do not get between each other's messages.
        self._acting = asyncio.Lock()
        self._caught_up = asyncio.Event()
        self._caught_up.set()

    async def run(self) -> None:
        """Serve the client until it goes, or a fault ends the connection."""
        try:
            async with self._group:
                await self._read()
                for task in self._tasks:
                    task.cancel()
        finally:
            for utterance in self._utterances.values():
                utterance.cancel()

    async def _read(self) -> None:
        while not await self._strike():
            try:
                frame = await self._websocket.receive()
            except ConnectionError:  # it asked for a pong, and was gone before it could have it
                return
            if frame.type is not WSMsgType.TEXT and frame.type is not WSMsgType.BINARY:
                return
            await self._act(self._session.receive(frame.data, time.time()))
            # A client that sends faster than real time must not keep the loop from everybody else.
            await asyncio.sleep(0)
            await self._caught_up.wait()

    async def _act(self, actions: list[Action]) -> None:
        if not actions:
            return
        async with self._acting:
            for action in actions:
                await self._do(action)
        if self._session.waiting >= MAX_WAITING:
            self._caught_up.clear()
        else:
            self._caught_up.set()

    async def _do(self, action: Action) -> None:
        match action:
            case Feed(utterance, pcm):
                self._utterances[utterance].feed(pcm)
            case Send(text):
                await self._send(text)
            case Open(utterance, options):
                self._utterances[utterance] = self._engine.utterance(options)
            case AskPartial(utterance):
                self._spawn(utterance, "partial")
            case AskFinal(utterance):
                self._spawn(utterance, "final")
            case Close(code, reason):
                await self._websocket.close(code=code, message=reason.encode())

    async def _send(self, text: str) -> None:
        if self._websocket.closed or (self._faults.never_finish and text == _FINISHED):
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._websocket.send_str(text)
        except TimeoutError:
            self._abort()
        except ConnectionError:
            pass  # the client is gone, which the reader learns by itself

    def _spawn(self, number: int, wanted: Literal["partial", "final"]) -> None:
        work = self._partial(number) if wanted == "partial" else self._final(number)
        task = self._group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _partial(self, number: int) -> None:
        recognition = await self._utterances[number].partial()
        await self._act(self._session.partial(number, recognition))

    async def _final(self, number: int) -> None:
        utterance = self._utterances.pop(number)
        try:
            recognition = await utterance.final()
        except EngineError as error:
            await self._act(self._session.failed(number, str(error)))
        except asyncio.CancelledError:
            utterance.cancel()
            raise
        else:
            await self._act(self._session.final(number, recognition))

    async def _strike(self) -> bool:
        """Let the fault that is due happen; whether it was the end of the connection."""
        if not self._session.started:
            return False
        faults, heard_s = self._faults, self._session.position / SAMPLE_RATE
        if _due(faults.close_after_s, heard_s):
            await self._websocket.close(code=faults.close_code)
            return True
        if _due(faults.reset_after_s, heard_s):
            self._abort()
            return True
        zombie = _due(faults.zombie_after_s, heard_s)
        if zombie:
            await self._send(message.error("The recogniser failed"))
        if zombie or _due(faults.stall_after_s, heard_s):
            if self._transport:
                self._transport.pause_reading()
            await self._closing.wait()
            self._abort()
            return True
        return False

    def _abort(self) -> None:
        if self._transport:
            peer: socket.socket = self._transport.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()


def _due(after_s: float | None, heard_s: float) -> bool:
    return after_s is not None and heard_s >= after_s
