"""A dictation against servers that behave, refuse, and break off."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from bridge.config import WhisperConfig
from bridge.errors import BridgeError
from bridge.local import dictation
from bridge.local.dictation import FRAME, Dictation, Frames, recording
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.protocol import Transcription

SAMPLES = np.arange(20 * FRAME - 100, dtype=np.int16)
FRAMES = [frame.tobytes() for frame in np.pad(SAMPLES, (0, 100)).reshape(-1, FRAME)]

ACKNOWLEDGED = json.dumps({"type": "end_audio", "body": {"status": "acknowledged"}})
FINISHED = json.dumps({"type": "end_audio", "body": {"status": "finished"}})


def transcription(text: str, *, is_final: bool = True) -> str:
    return json.dumps({"type": "transcription", "is_final": is_final, "segments": [{"text": text}]})


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictation, "FRAME_S", 0.002)


Handler = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def server(handler: Handler, status: HTTPStatus | None = None) -> AsyncIterator[str]:
    def refuse(connection: ServerConnection, _: Request) -> Response | None:
        return connection.respond(status, "") if status else None

    async with serve(handler, "127.0.0.1", 0, compression=None, process_request=refuse) as listening:
        yield f"ws://127.0.0.1:{listening.sockets[0].getsockname()[1]}/websocket"


class Transcriber:
    """A server that takes one dialect, and remembers what each connection was sent."""

    def __init__(self, accepts: str, refuses_after: int = 0, code: int = 1011) -> None:
        self.accepts = {"v1": "streaming_params", "seed": "streaming_whisper_params"}[accepts]
        self.refuses_after = refuses_after
        self.code = code
        self.heard: list[list[bytes]] = []

    async def __call__(self, socket: ServerConnection) -> None:
        start = json.loads(await socket.recv())
        heard: list[bytes] = []
        self.heard.append(heard)
        async for message in socket:
            if isinstance(message, str):
                break
            heard.append(message)
            if self.accepts not in start and len(heard) >= self.refuses_after:
                await socket.close(self.code)
                return
        await socket.send(ACKNOWLEDGED)
        await socket.send(transcription("almost", is_final=False))
        await socket.send(transcription("done"))
        await socket.send(FINISHED)
        await socket.wait_closed()


async def transcribe(
    url: str, dialect: str = "auto", source: Callable[[Frames], Awaitable[None]] | None = None
) -> list[str]:
    said: list[str] = []

    def understood(transcription: Transcription) -> None:
        said.append(f"{transcription.kind} {transcription.text}")

    async with asyncio.timeout(5):
        await Dictation(Endpoint(url, "", dialect), WhisperConfig(url=url), understood).run(
            source or recording(SAMPLES, 2)  # type: ignore[arg-type]  # tests' sources are plain coroutines
        )
    return said


async def refusal(url: str, dialect: str = "auto") -> str:
    with pytest.raises(BridgeError) as caught:
        await transcribe(url, dialect)
    return str(caught.value)


async def test_a_file_is_sent_in_whole_frames_and_answered() -> None:
    transcriber = Transcriber("v1")
    async with server(transcriber) as url:
        assert await transcribe(url) == ["partial almost", "final done"]
    assert transcriber.heard == [FRAMES]


@pytest.mark.parametrize("refuses_after", [0, 1, 7, 20])
async def test_the_other_dialect_is_tried_and_no_audio_is_lost(refuses_after: int) -> None:
    transcriber = Transcriber("seed", refuses_after)
    async with server(transcriber) as url:
        assert await transcribe(url) == ["partial almost", "final done"]
    assert len(transcriber.heard) == 2
    assert transcriber.heard[1] == FRAMES


async def test_a_configured_dialect_is_the_only_one() -> None:
    transcriber = Transcriber("seed")
    async with server(transcriber) as url:
        assert "refused the start message of dialect v1: closed with 1011" in await refusal(url, "v1")
        assert await transcribe(url, "seed") == ["partial almost", "final done"]


async def test_a_server_that_takes_no_dialect() -> None:
    connections = 0

    async def refusing(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await socket.recv()
        await socket.send(json.dumps({"type": "error", "body": {"error": "unknown key"}}))
        await socket.wait_closed()

    async with server(refusing) as url:
        sentence = await refusal(url)
    assert "refused the start message of dialect seed: unknown key" in sentence
    assert connections == 2


@pytest.mark.parametrize("code", [1000, 1001, 4000])
async def test_a_server_that_closes_too_early(code: int) -> None:
    async with server(Transcriber("seed", 3, code)) as url:
        assert f"ended the conversation too early: closed with {code}" in await refusal(url)


async def test_an_error_or_a_close_after_the_first_words_is_no_refusal() -> None:
    async def breaking(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(transcription("hello", is_final=False))
        await socket.close(1011)

    async def failing(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.send(transcription("hello", is_final=False))
        await socket.send(json.dumps({"type": "error", "message": "out of memory"}))
        await socket.wait_closed()

    async with server(breaking) as url:
        assert "too early: closed with 1011" in await refusal(url)
    async with server(failing) as url:
        assert (await refusal(url)).endswith("reports an error: out of memory")


async def test_a_server_that_never_finishes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def listening(socket: ServerConnection) -> None:
        async for _ in socket:
            pass

    monkeypatch.setattr(dictation, "FINISH_TIMEOUT_S", 0.1)
    async with server(listening) as url:
        assert (await refusal(url)).endswith("did not finish within 0.1 s")


async def test_a_server_that_does_not_answer(unused_tcp_port: int) -> None:
    sentence = await refusal(f"ws://127.0.0.1:{unused_tcp_port}/websocket")
    assert sentence.endswith("is it running? Start one with: whisper-bridge whisper")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (HTTPStatus.UNAUTHORIZED, "HTTP 401: check whisper.api_key"),
        (HTTPStatus.FORBIDDEN, "HTTP 403: check whisper.api_key"),
        (HTTPStatus.NOT_FOUND, "HTTP 404: check whisper.url"),
    ],
)
async def test_a_server_that_refuses_the_socket(status: HTTPStatus, advice: str) -> None:
    async with server(Transcriber("v1"), status) as url:
        assert advice in await refusal(url)


async def test_a_source_that_fails_ends_the_dictation() -> None:
    async def failing(_: Frames) -> None:
        raise BridgeError("unplugged")

    async with server(Transcriber("v1")) as url:
        with pytest.raises(BridgeError, match="unplugged"):
            await transcribe(url, source=failing)


async def test_a_file_waits_for_a_server_that_reads_slowly() -> None:
    frames: Frames = asyncio.Queue(2)
    playing = asyncio.create_task(recording(np.zeros(50 * FRAME, np.int16), 2)(frames))
    await asyncio.sleep(0.1)
    assert frames.full()
    assert not playing.done()
    received = 0
    while await frames.get() is not None:
        received += 1
    await playing
    assert received == 50


async def test_a_recording_is_played_as_it_was_spoken() -> None:
    frames: Frames = asyncio.Queue()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await recording(np.zeros(26 * FRAME, np.int16), 1)(frames)
    assert loop.time() - begun >= 25 * 0.002 - 0.001
    assert frames.qsize() == 27


async def test_ending_it_from_outside_leaves_nothing_behind() -> None:
    closed = asyncio.Event()

    async def listening(socket: ServerConnection) -> None:
        try:
            async for _ in socket:
                pass
        except ConnectionClosed:
            pass
        closed.set()

    async def endless(frames: Frames) -> None:
        while True:
            await frames.put(bytes(2 * FRAME))
            await asyncio.sleep(0.001)

    async with server(listening) as url:
        task = asyncio.create_task(transcribe(url, source=endless))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 2)
    assert len(asyncio.all_tasks()) == 1
