import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.errors import BridgeError
from bridge.local import speech
from bridge.local.whisper.faults import Faults
from bridge.local.whisper.server import WhisperServer
from tests.doubles.scripted_engine import ScriptedEngine
from tests.doubles.telephone import silence, telephone
from tests.doubles.whisper_client import WhisperClient, finals, session

PARTIALS = '{"streaming_params": {"enable_partial_transcripts": true, "partial_transcript_interval_s": 0.2}}'
SPEECH = telephone(speech.AGENT)[: (speech.script()[0].end_ms + 800) // 32 * 1024]
"""One sentence and the silence after it."""


@pytest.fixture
async def engine() -> ScriptedEngine:
    return ScriptedEngine(("good morning how can I help you today",))


@pytest.fixture
async def server(engine: ScriptedEngine) -> AsyncIterator[WhisperServer]:
    async with WhisperServer(engine) as server:
        yield server


async def closed(client: WhisperClient) -> tuple[int, str]:
    """The code and reason the server closes with, whatever it is sent until then."""
    try:
        while True:
            await client.hear(silence(0.1))
    except ConnectionClosed as error:
        return (error.rcvd.code, error.rcvd.reason) if error.rcvd else (1006, "")


async def test_the_engine_is_opened_and_closed_with_the_server() -> None:
    engine = ScriptedEngine()
    async with WhisperServer(engine) as server:
        assert (engine.opened, engine.closed) == (1, 0)
        assert server.url == f"ws://127.0.0.1:{server.port}/websocket"
        assert server.port > 0
    assert (engine.opened, engine.closed) == (1, 1)


async def test_partials_then_the_final(server: WhisperServer) -> None:
    async with session(server.url, PARTIALS) as client:
        await client.hear(SPEECH)
        messages = [await client.next()]
        while not messages[-1]["is_final"]:
            messages.append(await client.next())
        assert [message["is_final"] for message in messages[:-1]] == [False] * (len(messages) - 1)
        assert len(messages) > 2
        assert finals(messages) == ["good morning how can I help you today"]
        assert [message["body"]["status"] for message in await client.rest()] == ["acknowledged", "finished"]
        # The server does not close by itself.
        await client.say(type="health_check")
        assert (await client.next())["body"] == {"healthy": True}


async def test_end_audio_flushes_what_is_being_said(server: WhisperServer, engine: ScriptedEngine) -> None:
    engine.final_delay_s = 0.05
    async with session(server.url) as client:
        await client.hear(SPEECH[: 50 * 1024])
        acknowledged, final, finished = await client.rest()
    assert acknowledged["body"]["status"] == "acknowledged"
    assert final["is_end_of_audio_flush"] is True
    assert finished["body"]["status"] == "finished"


async def test_a_failed_utterance_is_an_error_in_its_place(
    server: WhisperServer, engine: ScriptedEngine
) -> None:
    engine.script = ("!", "hello")
    async with session(server.url) as client:
        await client.hear(SPEECH)
        await client.hear(SPEECH)
        error, final = [message for message in await client.rest() if message["type"] != "end_audio"]
    assert error == {"type": "error", "body": {"error": "The recogniser failed on this utterance"}}
    assert final["transcription_num"] == 2


async def test_silence_says_nothing(server: WhisperServer) -> None:
    async with session(server.url) as client:
        await client.hear(silence(5))
        assert len(await client.rest()) == 2


@pytest.mark.parametrize("start", ["{", '{"unknown": 1}', '{"streaming_params": {"sample_rate": "x"}}'])
async def test_a_bad_start_is_closed_with_1011(server: WhisperServer, start: str) -> None:
    async with session(server.url, start) as client:
        assert await closed(client) == (1011, "Internal Server Error (in model/chainlet).")


async def test_a_server_of_one_dialect_refuses_the_other(engine: ScriptedEngine) -> None:
    async with (
        WhisperServer(engine, dialect="v1") as server,
        session(server.url, '{"vad_params": {}}') as client,
    ):
        assert (await closed(client))[0] == 1011


async def test_a_client_that_leaves_without_waiting_for_its_pong_is_no_defect(
    server: WhisperServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with session(server.url) as client:
        await client.hear(silence(0.1))
        await client.say(type="health_check")
        await client.next()
        # Both lie in one packet: when the server comes to the ping, its client is gone.
        client.socket.transport.pause_reading()
        await client.hear(silence(3))
        await client.socket.ping()
        client.socket.transport.close()
    async with asyncio.timeout(5):
        while server._open:
            await asyncio.sleep(0.01)
    assert caplog.records == []


async def test_a_client_that_leaves_while_its_upgrade_hangs_is_no_defect(
    server: WhisperServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.faults = Faults(upgrade_delay_s=0.2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), session(server.url):
            pass
    await asyncio.sleep(0.3)
    assert (server._open, caplog.records) == (set(), [])


async def test_a_client_that_leaves_in_mid_sentence_cancels_it(
    server: WhisperServer, engine: ScriptedEngine
) -> None:
    async with session(server.url) as client:
        await client.hear(SPEECH[: 50 * 1024])
        await client.say(type="health_check")
        await client.next()
    async with asyncio.timeout(5):
        await engine.left.wait()
    assert engine.cancelled == 1


@pytest.mark.parametrize("key", ["Api-Key secret", "Bearer secret"])
async def test_the_right_key_is_let_in(engine: ScriptedEngine, key: str) -> None:
    async with WhisperServer(engine, api_key="secret") as server, session(server.url, key=key) as client:
        assert len(await client.rest()) == 2


@pytest.mark.parametrize(
    "key", [None, "secret", "Api-Key wrong", "Bearer ", "Basic secret", "Api-Key secret2"]
)
async def test_any_other_key_is_401_before_the_upgrade(engine: ScriptedEngine, key: str | None) -> None:
    async with WhisperServer(engine, api_key="secret") as server:
        with pytest.raises(InvalidStatus) as caught:
            async with session(server.url, key=key):
                pass
    assert caught.value.response.status_code == 401


async def test_without_a_key_any_is_accepted(server: WhisperServer) -> None:
    async with session(server.url, key="Api-Key whatever") as client:
        assert len(await client.rest()) == 2


async def test_plain_http_is_refused(server: WhisperServer) -> None:
    async with ClientSession() as http, http.get(server.url.replace("ws://", "http://")) as response:
        assert response.status == 400


async def test_a_taken_port_is_one_sentence(server: WhisperServer) -> None:
    other = ScriptedEngine()
    with pytest.raises(BridgeError, match=f"Cannot listen on 127.0.0.1:{server.port}"):
        async with WhisperServer(other, port=server.port):
            pass
    assert other.closed == 1


async def test_closing_the_server_closes_its_clients(engine: ScriptedEngine) -> None:
    async with WhisperServer(engine) as server, session(server.url) as client:
        await client.say(type="health_check")
        await client.next()
        await server.close()
        assert (await closed(client))[0] == 1001


@pytest.mark.parametrize("status", [401, 403, 404, 429, 503])
async def test_fault_refusal(server: WhisperServer, status: int) -> None:
    server.faults = Faults(refuse_status=status, times=1)
    with pytest.raises(InvalidStatus) as caught:
        async with session(server.url):
            pass
    assert caught.value.response.status_code == status
    async with session(server.url) as client:
        assert len(await client.rest()) == 2
    assert server.connections == 2


async def test_fault_slow_upgrade(server: WhisperServer) -> None:
    server.faults = Faults(upgrade_delay_s=0.3)
    before = time.monotonic()
    async with session(server.url) as client:
        assert time.monotonic() - before >= 0.3
        assert len(await client.rest()) == 2


async def test_fault_close(server: WhisperServer) -> None:
    server.faults = Faults(close_after_s=0.5, close_code=1012)
    async with session(server.url) as client:
        assert (await closed(client))[0] == 1012


async def test_fault_close_right_after_the_start(server: WhisperServer) -> None:
    server.faults = Faults(close_after_s=0)
    async with session(server.url) as client:
        assert (await closed(client))[0] == 1011


async def test_fault_reset(server: WhisperServer) -> None:
    server.faults = Faults(reset_after_s=0.5)
    async with session(server.url) as client:
        assert (await closed(client))[0] == 1006


@pytest.mark.parametrize("faults", [Faults(stall_after_s=0.5), Faults(zombie_after_s=0.5)])
async def test_fault_no_more_reading(server: WhisperServer, faults: Faults) -> None:
    server.faults = faults
    async with session(server.url) as client:
        await client.hear(silence(1))
        await client.say(type="health_check")
        if faults.zombie_after_s is not None:
            assert (await client.next())["type"] == "error"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.next()
        client.socket.transport.abort()


async def test_fault_never_finished(server: WhisperServer) -> None:
    server.faults = Faults(never_finish=True)
    async with session(server.url) as client:
        await client.hear(SPEECH)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await client.rest()
        await client.say(type="health_check")
        assert (await client.next())["body"]["healthy"]
