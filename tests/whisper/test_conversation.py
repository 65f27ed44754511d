import asyncio
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bridge import log
from bridge.config import WhisperConfig
from bridge.whisper import conversation as module
from bridge.whisper.conversation import Conversation, Ending
from bridge.whisper.endpoint import Endpoint
from bridge.whisper.protocol import Transcription
from bridge.whisper.socket import WhisperSocket

FINAL = '{"type":"transcription","is_final":true,"segments":[{"text":"%s","start_time":0,"end_time":1}]}'
ACKNOWLEDGED = '{"type":"end_audio","body":{"status":"acknowledged"}}'
FINISHED = '{"type":"end_audio","body":{"status":"finished"}}'
Server = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.05)
    monkeypatch.setattr(module, "ANSWER_S", 0.15)
    monkeypatch.setattr(module, "ACKNOWLEDGED_S", 0.6)


async def converse(server: Server, *, dialect: str = "v1") -> tuple[Ending, list[str], Endpoint]:
    """A conversation in which we say `end_audio` at once."""
    heard: list[str] = []

    class Ear:
        async def understood(self, said: Transcription) -> None:
            heard.append(said.text)

        async def look(self, now: float) -> None:
            pass

    async with serve(server, "127.0.0.1", 0, ping_interval=None) as running:
        url = f"ws://127.0.0.1:{next(iter(running.sockets)).getsockname()[1]}/websocket"
        endpoint = Endpoint(url, "", dialect)
        socket = await WhisperSocket.connect(url, api_key="", timeout=2)
        conversation = Conversation(socket, endpoint, WhisperConfig(), Ear(), log.get("test"))
        conversation.end_audio()
        ending = await conversation.run()
        assert not conversation.writable
    return ending, heard, endpoint


def says(*messages: str | float) -> Server:
    """A server that says these messages after `end_audio`, and waits where there is a number of seconds."""

    async def server(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.recv()
        for message in messages:
            if isinstance(message, str):
                await socket.send(message)
            else:
                await asyncio.sleep(message)
        await socket.wait_closed()

    return server


async def test_finished_ends_it() -> None:
    assert (await converse(says(ACKNOWLEDGED, FINAL % "last", FINISHED)))[:2] == (Ending.FINISHED, ["last"])


async def test_acknowledged_is_not_the_end_and_buys_time() -> None:
    answer = await converse(says(ACKNOWLEDGED, 0.4, FINAL % "late", FINISHED))
    assert answer[:2] == (Ending.FINISHED, ["late"])


async def test_transcripts_keep_coming_as_long_as_each_comes_in_time() -> None:
    finals = [part for n in range(5) for part in (0.1, FINAL % f"w{n}")]
    ending, heard, _ = await converse(says(*finals, FINISHED))
    assert (ending, heard) == (Ending.FINISHED, ["w0", "w1", "w2", "w3", "w4"])


async def test_finals_without_finished_are_heard_and_told_apart() -> None:
    assert (await converse(says(FINAL % "last")))[:2] == (Ending.SILENT, ["last"])


async def test_a_final_that_was_on_its_way_does_not_shorten_the_wait() -> None:
    answer = await converse(says(ACKNOWLEDGED, FINAL % "earlier", 0.4, FINAL % "last", FINISHED))
    assert answer[:2] == (Ending.FINISHED, ["earlier", "last"])


@pytest.mark.parametrize("messages", [(), (ACKNOWLEDGED,)])
async def test_silence_at_the_end_is_told_apart(messages: tuple[str, ...]) -> None:
    assert (await converse(says(*messages)))[0] is Ending.SILENT


async def test_repetitions_are_heard_once() -> None:
    assert (await converse(says(FINAL % "once", FINAL % "once", FINISHED)))[1] == ["once"]


async def test_a_start_that_is_refused_by_closing() -> None:
    async def refuse(socket: ServerConnection) -> None:
        await socket.recv()
        await socket.close(1011, "Internal Server Error (in model/chainlet).")

    ending, _, endpoint = await converse(refuse, dialect="auto")
    assert (ending, endpoint.dialect) == (Ending.REJECTED, "seed")
    assert (await converse(refuse, dialect="v1"))[0] is Ending.DROPPED


async def test_a_start_that_is_refused_by_an_error_message() -> None:
    error = '{"type":"error","body":{"error":"unknown key"}}'
    ending, _, endpoint = await converse(says(error, FINISHED), dialect="auto")
    assert (ending, endpoint.dialect) == (Ending.REJECTED, "seed")
    assert (await converse(says(error, FINISHED), dialect="v1"))[0] is Ending.FINISHED


async def test_an_error_later_on_says_nothing_about_the_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REJECTION_S", 0.0)
    ending, _, endpoint = await converse(says('{"type":"error"}', FINISHED), dialect="auto")
    assert (ending, endpoint.dialect) == (Ending.FINISHED, "v1")


async def test_what_means_nothing_is_passed_over() -> None:
    noise = ["{", '{"type":"health_check"}', '{"type":"session.created"}', "[]"]
    assert (await converse(says(*noise, FINAL % "x", FINISHED)))[:2] == (Ending.FINISHED, ["x"])
