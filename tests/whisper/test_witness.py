"""Loud audio that no server says anything about: the present socket is kept, and what is said next is not delayed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from bridge.audio import mulaw, wav
from bridge.audio.voice import Stretches
from bridge.local.speech import CALLER
from bridge.whisper import hold, patience, session, watermark
from bridge.whisper.ear import Ear
from bridge.whisper.endpoint import Endpoint
from tests.chaos.quiet import music
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


async def nobody(_: bytes) -> Stretches:
    """No speech."""
    return []


@pytest.mark.parametrize("hang_up_s", [8, 20, 70])
async def test_what_is_no_speech_needs_neither_a_witness_nor_a_final(tmp_path: Path, hang_up_s: int) -> None:
    music = (MUSIC * 50)[: hang_up_s * 8000]
    async with NumberedWhisper() as server:
        server.unheard = range(90, 94)
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints, listen=nobody) as call:
            await call.live(music, SPEED)
            kept_s = (call.journal.end - call.session.watermark.offset) / 8000
            await call.to_the_end()
            assert (call.words, call.lost, call.session.gave_up) == ([], [], False)
        assert len(server.attempts) == 1
        assert kept_s < watermark.QUIET_S + 1


@pytest.mark.parametrize("people", [True, False])
async def test_people_are_told_from_music_by_silero(tmp_path: Path, people: bool) -> None:
    caller = mulaw.encode(wav.read_mono(CALLER, wav.TELEPHONE_HZ))
    heard = (2 * caller) if people else music(56)
    ear = Ear()
    async with NumberedWhisper() as server:
        server.mute = set(range(100))
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints, listen=ear.listen) as call:
            await call.live(heard, SPEED)
            assert (len(server.attempts) > 1) is people
    ear.close()


async def test_no_speech_at_the_end_of_a_deaf_server_is_no_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LAST_TRIES", 2)
    async with NumberedWhisper() as server:
        server.deaf_at_end = True
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints, listen=nobody) as call:
            call.hear(MUSIC * 4)
            await call.to_the_end()
            assert (call.lost, call.session.gave_up) == ([], False)


async def test_speech_after_much_music_is_told_from_it_and_had_from_a_server_that_hears(
    tmp_path: Path,
) -> None:
    words = speech(range(16)) + b"\xff" * 8000
    levels = set(words) - {0xFF}

    async def people(audio: bytes) -> Stretches:
        at = [offset for offset, level in enumerate(audio) if level in levels]
        return [(at[0], at[-1])] if at else []

    async with NumberedWhisper() as server:
        server.unheard = range(90, 94)
        server.mute = {0}
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints, listen=people) as call:
            await call.live(MUSIC * 15 + words + MUSIC * 42, SPEED)
            async with asyncio.timeout(5):
                while not call.words:
                    await asyncio.sleep(0.01)
            assert len(server.connections) == 3
            # The witness was sent the speech and not the music before it.
            assert server.connections[1].heard_s < len(words) / 8000 + 10
            await call.to_the_end()
            assert (call.words, call.lost) == (numbered(range(16)), [])


async def test_words_after_music_that_sounds_like_speech_are_heard_at_once_and_on_the_same_socket(
    tmp_path: Path,
) -> None:
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
