"""Music that no server says anything about: the present socket is kept, and what is said next is not delayed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from bridge.whisper import hold, patience
from bridge.whisper.endpoint import Endpoint
from tests.doubles.haste import haste
from tests.doubles.numbered import Connection, NumberedWhisper, speech
from tests.doubles.track import numbered, track

SPEED = 20
MUSIC = speech(range(90, 94))
"""Words to a server; to one that knows better it is music: it says nothing of what begins with them."""


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with haste(SPEED):
        yield


async def test_words_after_music_with_pauses_are_heard_at_once_and_on_the_same_socket(tmp_path: Path) -> None:
    music = MUSIC * 90  # 130 s
    async with NumberedWhisper() as server:
        server.unheard = range(90, 94)
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints, replay_speed=1.5 * SPEED) as call:
            await call.live(music + speech(range(4)) + b"\xff" * 8000, SPEED)
            async with asyncio.timeout(hold.WAIT_S + 3 / SPEED):
                while not call.finals:
                    await asyncio.sleep(0.001)
            await call.to_the_end()
            assert (call.words, call.lost) == (numbered(range(4)), [])
        assert 2 <= len(server.connections) <= 4
        assert server.connections[0].heard_s > len(music) / 8000


@pytest.mark.parametrize("status", [503, 0])
async def test_without_a_witness_the_present_socket_is_kept(tmp_path: Path, status: int) -> None:
    async with NumberedWhisper() as server:
        server.unheard = range(90, 94)

        async def spoil(number: int, _: Connection, socket: ServerConnection) -> None:
            server.refusing = status
            if number:
                await socket.close(1011)

        server.fault = spoil
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(MUSIC * 50 + speech(range(4)), SPEED)
            await call.to_the_end()
            assert (call.words, call.lost) == (numbered(range(4)), [])
        assert len(server.attempts) > 1
        assert server.connections[0].heard_s > 70


async def test_a_final_makes_the_witness_needless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LEAST_S", 5 / SPEED)
    async with NumberedWhisper() as server:
        server.delay_s = [0.0, 60 / SPEED]  # the witness is let in a minute later

        async def lag(_: int, connection: Connection, __: ServerConnection) -> None:
            connection.mute = connection.heard_s < 20

        server.fault = lag
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(speech(range(120)), SPEED)
            await call.to_the_end()
            assert call.words[-64:] == numbered(range(56, 120))
        assert len(server.connections) == 1
