import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection

from bridge.audio import mulaw
from bridge.audio.upsample import FRAME, FRAME_OUT
from bridge.whisper import breaker, conversation, route
from bridge.whisper import session as module
from bridge.whisper import watermark as watermark_module
from bridge.whisper.endpoint import DIALECT_PROBES, Endpoint
from bridge.whisper.protocol import Dialect
from tests.doubles.numbered import Connection, NumberedWhisper, reset, speech
from tests.doubles.track import numbered, track


def drop(
    after: dict[int, int], how: Callable[[ServerConnection], Awaitable[None]]
) -> Callable[..., Awaitable[None]]:
    """Break connection `n` once it has received `after[n]` bytes of PCM."""

    async def fault(number: int, connection: Connection, socket: ServerConnection) -> None:
        if number in after and len(connection.pcm) >= after[number]:
            await how(socket)

    return fault


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "BACKOFF_FIRST_S", 0.005)
    monkeypatch.setattr(route, "BUSY_FIRST_S", 0.01)
    monkeypatch.setattr(route, "QUICK_BACKOFF_S", 0.05)
    monkeypatch.setattr(breaker, "REST_S", 0.05)
    monkeypatch.setattr(conversation, "LOOK_S", 0.05)
    monkeypatch.setattr(conversation, "ANSWER_S", 0.4)
    monkeypatch.setattr(conversation, "ACKNOWLEDGED_S", 2.0)


async def test_a_call_is_understood_word_for_word(tmp_path: Path) -> None:
    async with NumberedWhisper() as server, track(tmp_path, server) as call:
        call.hear(speech(range(10)))
        await call.to_the_end()
        assert call.words == numbered(range(10))
        (connection,) = server.connections
        assert connection.frame_sizes == {2 * FRAME_OUT}
        assert connection.texts == ['{"type": "end_audio"}']
        await asyncio.sleep(0.05)
        assert connection.close_code == 1000
        assert connection.headers.get("Authorization") is None


async def test_times_are_offsets_into_the_journal(tmp_path: Path) -> None:
    async with NumberedWhisper() as server, track(tmp_path, server) as call:
        call.hear(b"\xff" * 8000 + speech(range(2)))
        await call.to_the_end()
        (final,) = call.finals
        assert abs(final.start - 8000) < 8 * 10
        assert abs(final.words[1].start - (8000 + 260 * 8)) < 8 * 10
        assert abs(final.end - (8000 + 460 * 8)) < 8 * 10


async def test_the_key_travels_as_api_key(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        endpoint = Endpoint(server.url, "s3cret", "v1")
        async with track(tmp_path, server, endpoints=(endpoint,)) as call:
            call.hear(speech(range(1)))
            await call.to_the_end()
        assert server.connections[0].headers["Authorization"] == "Api-Key s3cret"


async def test_the_first_word_survives_a_handshake_that_hangs(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.delay_s = [1.0]
        async with track(tmp_path, server) as call:
            await call.live(speech(range(8)), speed=4)
            await call.to_the_end()
        assert call.words == numbered(range(8))
        assert len(server.connections) == 1


@pytest.mark.parametrize("dialect", ["v1", "seed"])
async def test_auto_finds_the_dialect_and_loses_no_audio(tmp_path: Path, dialect: str) -> None:
    async with NumberedWhisper() as server:
        server.dialects = (dialect,)
        endpoint = Endpoint(server.url, "", "auto")
        for call_number in range(2):
            async with track(tmp_path / str(call_number), server, endpoints=(endpoint,)) as call:
                call.hear(speech(range(6)))
                await call.to_the_end()
            assert call.words == numbered(range(6))
        assert endpoint.dialect == dialect
        assert len(server.connections) == (
            2 if dialect == "v1" else 3
        )  # the second call asks the right way at once


async def test_a_confirmed_dialect_that_is_refused_is_left_by_the_session_that_was_refused(
    tmp_path: Path,
) -> None:
    async with NumberedWhisper() as server:
        server.dialects = ("seed",)
        endpoint = Endpoint(server.url, "", "auto")
        endpoint.accepted(Dialect.V1)
        async with track(tmp_path, server, endpoints=(endpoint,)) as call:
            call.hear(speech(range(6)))
            await call.to_the_end()
        assert call.words == numbered(range(6))
        assert endpoint.dialect == "seed"
        assert len(server.connections) == DIALECT_PROBES + 1


@pytest.mark.parametrize("how", ["reset", "1011", "1000", "1012"])
async def test_what_was_not_finalised_when_the_socket_dropped_is_sent_again(tmp_path: Path, how: str) -> None:
    async def close(socket: ServerConnection) -> None:
        if how == "reset":
            await reset(socket)
        else:
            await socket.close(int(how))

    async with NumberedWhisper() as server:
        server.fault = drop({0: 20_000, 1: 90_000, 2: 33_333}, close)
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(speech(range(40)), speed=10)
            await call.to_the_end()
        assert call.words == numbered(range(40))
        assert len(server.connections) == 4
        assert all(a.end <= b.start + 80 for a, b in zip(call.finals, call.finals[1:], strict=False))


async def test_replayed_audio_is_marked_by_where_it_lies(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.fault = drop({0: 30_000}, reset)
        async with track(tmp_path, server) as call:
            await call.live(speech(range(12)), speed=10)
            await call.to_the_end()
        recovered = [final.start < call.session.resent_until for final in call.finals]
        assert recovered[0]
        assert not recovered[-1]


async def test_a_drop_between_end_audio_and_finished_keeps_the_last_words(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:

        async def fault(number: int, connection: Connection, socket: ServerConnection) -> None:
            if number == 0 and len(connection.pcm) >= 4 * 3 * 260 * 8:
                await reset(socket)

        server.fault = fault
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)))
            await call.to_the_end()
        assert call.words == numbered(range(3))


async def test_finished_that_never_comes_does_not_hold_the_call(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.finishes = False
        async with track(tmp_path, server) as call:
            call.hear(speech(range(2)))
            await call.to_the_end()
        assert call.words == numbered(range(2))


async def test_refused_upgrades_are_tried_again(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.refuse = [503, 429, 404]
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)))
            await call.to_the_end()
        assert call.words == numbered(range(3))


async def test_a_second_failed_connect_turns_to_the_fallback(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        dead = Endpoint("ws://127.0.0.1:9/websocket", "", "v1")
        async with track(tmp_path, server, endpoints=(dead, Endpoint(server.url, "", "v1"))) as call:
            call.hear(speech(range(3)))
            await call.to_the_end()
        assert call.words == numbered(range(3))


async def test_partials_replace_each_other_and_finals_follow(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.partials = True
        async with track(tmp_path, server) as call:
            call.hear(speech(range(4)))
            await call.to_the_end()
        assert [p.text for p in call.partials][:3] == ["w0", "w0 w1", "w0 w1 w2"]
        assert call.words == numbered(range(4))


async def test_a_server_that_gives_no_times_loses_nothing(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.word_times = False
        server.fault = drop({0: 60_000}, reset)
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(speech(range(16)), speed=4)
            await call.to_the_end()
        assert set(numbered(range(16))) <= set(call.words)
        assert len(call.words) == 16


async def test_no_audio_needs_one_frame_and_no_final(tmp_path: Path) -> None:
    async with NumberedWhisper() as server, track(tmp_path, server) as call:
        await call.to_the_end()
        assert call.finals == []
        assert len(server.connections[0].pcm) == 2 * FRAME_OUT


async def test_silence_does_not_grow_the_journal(tmp_path: Path) -> None:
    async with NumberedWhisper() as server, track(tmp_path, server) as call:
        call.session.heard()
        call.hear(bytes([mulaw.SILENCE]) * 8000 * 100)
        async with asyncio.timeout(20):
            while call.session.cursor < 8000 * 99:
                await asyncio.sleep(0.02)
        assert call.journal.start > 8000 * 40
        await call.to_the_end()
        assert call.lost == []


async def test_audio_given_up_while_whisper_was_away_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.audio.journal.LIMIT", 20 * 8000)
    async with NumberedWhisper() as server:
        server.delay_s = [0.5]
        async with track(tmp_path, server) as call:
            call.hear(b"\xff" * 8000 * 40 + speech(range(3)))
            await call.to_the_end()
        ((start, end, why),) = call.lost
        assert (start, why) == (0, "journal_full")
        assert 8000 * 20 <= end <= 8000 * 40
        assert call.words == numbered(range(3))


async def test_pacing_holds_a_backlog_back(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.delay_s = [0.2]
        async with track(tmp_path, server) as call:
            call.session._whisper = call.session._whisper.model_copy(update={"replay_speed": 2.0})
            call.hear(b"\xff" * 8000 * 3)
            await asyncio.sleep(0.2)
            while not server.connections:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            sent = call.session.cursor / 8000
            assert 0.5 <= sent <= 1.5  # twice real time, for half a second and a little
            assert call.session.cursor % FRAME == 0


async def test_a_server_that_is_slow_at_the_end_keeps_the_last_words(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.end_delay_s = 1.0  # more than twice the patience with a silent server
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)))
            await call.to_the_end()
        assert call.words == numbered(range(3))
        assert len(server.connections) == 1


async def test_last_words_that_cannot_be_had_are_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "ANSWER_S", 0.1)
    async with NumberedWhisper() as server:
        server.deaf_at_end = True
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)))
            await call.to_the_end()
        assert call.words == []
        assert call.session.gave_up
        ((start, end, why),) = call.lost
        assert (start, why) == (0, "whisper_silent")
        assert end >= 3 * 260 * 8


async def test_silence_that_cannot_be_confirmed_is_no_gap(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.deaf_at_end = True
        async with track(tmp_path, server) as call:
            call.hear(bytes([mulaw.SILENCE]) * 8000)
            await call.to_the_end()
        assert (call.lost, call.session.gave_up) == ([], False)


async def test_audio_is_kept_while_the_outbox_is_down(tmp_path: Path) -> None:
    async with NumberedWhisper() as server, track(tmp_path, server) as call:
        call.stored.clear()
        call.hear(speech(range(12)) + bytes([mulaw.SILENCE]) * 8000 * 100)
        async with asyncio.timeout(20):
            while call.session.cursor < 8000 * 100:
                await asyncio.sleep(0.02)
        assert (call.journal.start, call.session.watermark.offset) == (0, 0)
        call.stored.set()
        await call.to_the_end()
        assert call.words == numbered(range(12))


async def test_words_of_a_server_that_lags_are_not_taken_for_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark_module, "QUIET_S", 2.0)
    async with NumberedWhisper() as server:

        async def fault(number: int, connection: Connection, socket: ServerConnection) -> None:
            if number == 0 and len(connection.pcm) > 32_000 * 20:
                await reset(socket)

        server.fault = fault
        server.mute = {0}  # hears everything, says nothing, and then drops
        async with track(tmp_path, server) as call:
            call.hear(speech(range(80)))
            await call.to_the_end()
        assert call.words == numbered(range(80))


async def test_a_journal_that_overtakes_the_cursor_is_told_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.audio.journal.LIMIT", 20 * 8000)
    async with NumberedWhisper() as server, track(tmp_path, server) as call:
        call.session._whisper = call.session._whisper.model_copy(update={"replay_speed": 1.5})
        while call.session._conversation is None:
            await asyncio.sleep(0.01)
        call.hear(speech(range(150)))  # 54 s of audio at once, of which 20 s are kept
        async with asyncio.timeout(10):
            while not call.lost:
                await asyncio.sleep(0.01)
        assert call.session.cursor >= call.journal.start
        assert call.lost[0][1:] == (call.journal.start, "journal_full")


async def test_a_disk_that_stays_unreadable_costs_a_gap_not_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNREADABLE_S", 0.05)
    async with NumberedWhisper() as server:
        server.delay_s = [0.2]
        async with track(tmp_path, server) as call:
            call.hear(bytes([mulaw.SILENCE]) * 8000 * 30 + speech(range(4)))
            (tmp_path / "track" / "000000.ulaw").unlink()
            await call.to_the_end()
        assert call.lost == [(0, 65536, "journal_unreadable")]
        assert call.words == numbered(range(4))


async def test_a_primary_that_hangs_does_not_delay_the_fallback_for_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "OPEN_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hung:  # takes connections and never says a word
        url = f"ws://127.0.0.1:{hung.getsockname()[1]}/websocket"
        async with NumberedWhisper() as server:
            await fallback(tmp_path, url, server)


async def fallback(tmp_path: Path, url: str, server: NumberedWhisper) -> None:
    endpoints = (Endpoint(url, "", "v1"), Endpoint(server.url, "", "v1"))
    async with track(tmp_path, server, endpoints=endpoints) as call:
        call.hear(speech(range(3)))
        await call.to_the_end(timeout=5)
    assert call.words == numbered(range(3))


async def test_a_server_that_refuses_every_dialect_is_not_stormed(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.dialects = ()
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)))
            await asyncio.sleep(1.0)
            assert 3 <= len(server.connections) <= 40  # with this test's short backoff
            server.dialects = ("v1", "seed")
            await call.to_the_end()
        assert call.words == numbered(range(3))


async def test_a_server_that_closes_instead_of_finishing_ends_the_session(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.closes_at_end = True
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)) + bytes([mulaw.SILENCE]) * 8000)
            await call.to_the_end(timeout=5)
        assert call.words == numbered(range(3))
        assert len(server.connections) == 1
        assert (call.lost, call.session.gave_up) == ([], False)


async def test_a_socket_that_drops_at_every_end_is_given_up_with_a_gap(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.closes_at_end = True
        server.mute = set(range(100))
        async with track(tmp_path, server) as call:
            call.hear(speech(range(3)))
            await call.to_the_end(timeout=10)
        assert call.session.gave_up
        assert call.lost == [(0, len(speech(range(3))), "whisper_silent")]
        assert len(server.connections) == module.LAST_TRIES


async def test_the_tail_of_a_published_word_is_not_published_again(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.early_s = 0.11  # the server ends every word more than half of it too early
        server.fault = drop({0: 60_000}, reset)
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(speech(range(16)), speed=8)
            await call.to_the_end()
        assert call.words == numbered(range(16))
