"""Every fault that a Whisper server, or the way to it, can have: it is noticed in time, and no word is lost or repeated."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.server import ServerConnection

from bridge.whisper import breaker, hold, lifespan, patience, route, watermark
from bridge.whisper.endpoint import Endpoint
from tests.doubles.haste import haste
from tests.doubles.numbered import Connection, Fault, NumberedWhisper, reset, speech, stop_reading, zombie
from tests.doubles.track import numbered, track

SPEED = 20
"""Seconds of a call that pass in one of the clock, in these tests."""

Break = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(autouse=True)
def fast() -> Iterator[None]:
    with haste(SPEED):
        yield


def closing(code: int) -> Break:
    async def close(socket: ServerConnection) -> None:
        await socket.close(code)

    return close


def at(after_s: dict[int, float], how: Break) -> Fault:
    """Break connection n once it has received `after_s[n]` seconds of audio."""

    async def fault(number: int, connection: Connection, socket: ServerConnection) -> None:
        if number in after_s and connection.heard_s >= after_s[number]:
            await how(socket)

    return fault


async def a_call(directory: Path, server: NumberedWhisper, words: int = 40, **options: object) -> list[str]:
    """A call of so many words, as it is spoken; returns what was understood."""
    endpoints = (Endpoint(server.url, "", "v1"),)
    async with track(directory, server, endpoints=endpoints, **options) as call:  # type: ignore[arg-type]  # passed on
        await call.live(speech(range(words)), SPEED)
        await call.to_the_end()
        starts = [final.start for final in call.finals]
        assert starts == sorted(starts)
        assert call.lost == []
        assert not call.session.gave_up
        return call.words


BREAKS: dict[str, Break] = {
    "reset": reset,
    "1000": closing(1000),
    "1001": closing(1001),
    "1011": closing(1011),
    "1012": closing(1012),
    "1013": closing(1013),
    "stop reading": stop_reading,
    "zombie": zombie,
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("after_s", [0.0, 1.3, 4.7])
async def test_a_socket_that_breaks_costs_no_word(tmp_path: Path, how: str, after_s: float) -> None:
    async with NumberedWhisper() as server:
        server.fault = at({0: after_s, 1: after_s + 1}, BREAKS[how])
        assert await a_call(tmp_path, server) == numbered(range(40))
        assert len(server.connections) == 3


async def test_sockets_of_a_few_seconds_get_past_a_long_silence(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.fault = at(dict.fromkeys(range(1000), 4.0), reset)
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints, replay_speed=1.5 * SPEED) as call:
            await call.live(speech(range(4)) + b"\xff" * 8000 * 30 + speech(range(4, 12)), SPEED)
            await call.to_the_end()
            assert call.words == numbered(range(12))


async def test_a_server_that_stops_transcribing_and_answers_pings_is_left(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:

        async def deafen(number: int, connection: Connection, _: ServerConnection) -> None:
            connection.mute = number == 0 and connection.heard_s > 4

        server.fault = deafen
        with capture_logs() as logs:
            assert await a_call(tmp_path, server, 200) == numbered(range(200))
        assert len(server.connections) == 3  # the deaf one, a witness, and the next
        assert "no_final" in {line.get("why") for line in logs}
        # Three seconds of speech, then patience, and a look every second.
        assert server.connections[0].heard_s < 4 + 6 + 1.3 * patience.LEAST_S * SPEED


async def test_a_server_that_stops_reading_is_noticed_within_the_time_of_a_ping(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.fault = at({0: 2.0}, stop_reading)
        loop = asyncio.get_running_loop()
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            began = loop.time()
            await call.live(speech(range(100)), SPEED)
            await call.to_the_end()
            assert call.words == numbered(range(100))
        assert len(server.connections) == 2
        assert server.attempts[1] - began < (2.0 + 10 + 10 + 3) / SPEED


async def test_a_zombie_is_noticed_by_asking(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.fault = at({0: 1.0}, zombie)
        with capture_logs() as logs:
            async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
                await call.live(b"\xff" * 8000 * 60, SPEED)  # nobody speaks: no final is missing
                assert len(server.connections) == 2
                await call.to_the_end()
        # Which of the two comes first depends on how much the kernel takes for a server that does not read.
        assert {"unanswered", "blocked"} & {line.get("why") for line in logs}


@pytest.mark.parametrize("health", ["answered", "ignored", "error", "closed"])
async def test_a_long_silence_keeps_its_socket_whatever_the_server_knows(tmp_path: Path, health: str) -> None:
    async with NumberedWhisper() as server:
        server.health = health
        endpoint = Endpoint(server.url, "", "v1")
        async with track(tmp_path, server, endpoints=(endpoint,)) as call:
            await call.live(b"\xff" * 8000 * 45, SPEED)
            await call.to_the_end()
        asked = [text for each in server.connections for text in each.texts if "health" in text]
        assert len(server.connections) == (2 if health == "closed" else 1)
        assert endpoint.knows_health is {"answered": True, "closed": False}.get(health)
        assert len(asked) == {"answered": 4, "ignored": 2, "error": 2, "closed": 1}[health]


@pytest.mark.parametrize("status", [301, 404, 429, 500, 503])
async def test_a_refusal_is_waited_out(tmp_path: Path, status: int) -> None:
    async with NumberedWhisper() as server:
        server.refuse = [status] * 3
        server.headers = {"Location": "http://127.0.0.1:1/"} if status == 301 else {}
        assert await a_call(tmp_path, server, 20) == numbered(range(20))
        assert len(server.attempts) == 4
        if status in route.BUSY:
            waits = [b - a for a, b in zip(server.attempts, server.attempts[1:], strict=False)]
            assert all(wait >= route.BUSY_FIRST_S / 2 for wait in waits)


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.refuse = [503]
        server.headers = {"Retry-After": "1"}
        assert await a_call(tmp_path, server, 20) == numbered(range(20))
        assert server.attempts[1] - server.attempts[0] >= 1


async def test_a_refused_key_is_said_once_and_not_tried_before_a_minute(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.refuse = [401]
        with capture_logs() as logs:
            assert await a_call(tmp_path, server, 20) == numbered(range(20))
        assert server.attempts[1] - server.attempts[0] >= route.FORBIDDEN_S
        assert [line["event"] for line in logs].count("whisper_unreachable") == 1


async def test_a_cold_start_of_minutes_keeps_the_first_word(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        boot = asyncio.get_running_loop().time() + 60 / SPEED

        async def booting() -> None:
            while asyncio.get_running_loop().time() < boot:
                server.delay_s = [boot - asyncio.get_running_loop().time()] * 100
                await asyncio.sleep(0.05)
            server.delay_s = []

        started = asyncio.create_task(booting())
        assert await a_call(tmp_path, server, 20) == numbered(range(20))
        await started
        assert len(server.attempts) < 12


@pytest.mark.parametrize("dialect", ["v1", "seed"])
async def test_a_dialect_that_was_configured_wrong_is_said_once_and_asked_slowly(
    tmp_path: Path, dialect: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "QUICK_BACKOFF_S", 0.4)
    async with NumberedWhisper() as server:
        server.dialects = ()
        endpoint = Endpoint(server.url, "", dialect)
        with capture_logs() as logs:
            async with track(tmp_path / "a", server, endpoints=(endpoint,)) as call:
                await call.live(speech(range(20)), SPEED)
                await asyncio.sleep(5 * route.QUICK_BACKOFF_S / 2)
                assert 4 <= len(server.connections) <= 10
                server.dialects = ("v1", "seed")
                await call.to_the_end()
        assert call.words == numbered(range(20))
        assert [line["event"] for line in logs].count("whisper_useless") == 1


@pytest.mark.parametrize("words", [0, 3])
async def test_finished_that_never_comes_keeps_the_last_words(tmp_path: Path, words: int) -> None:
    async with NumberedWhisper() as server:
        server.finishes = False
        assert await a_call(tmp_path, server, words) == numbered(range(words))
        assert len(server.connections) == 1


async def test_finished_before_the_last_final_is_not_believed_once(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.finishes_early = True

        async def better(number: int, *_: object) -> None:
            server.finishes_early = number == 0

        server.fault = better
        assert await a_call(tmp_path, server, 11) == numbered(range(11))
        assert len(server.connections) == 2


async def test_finished_without_a_word_for_noise_is_believed_the_second_time(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.mute = {0, 1}
        endpoints = (Endpoint(server.url, "", "v1"),)
        async with track(tmp_path, server, endpoints=endpoints) as call:
            call.hear(speech(range(3)))
            await call.to_the_end()
            assert (call.words, call.lost, call.session.gave_up) == ([], [], False)
        assert len(server.connections) == 2


@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("times", ["words", "segments", "none"])
async def test_finals_said_twice_are_published_once(tmp_path: Path, times: str, numbers: bool) -> None:
    if times == "none" and not numbers:
        pytest.skip("once somebody speaks again it may have heard the same words twice; see test_scribe.py")
    async with NumberedWhisper() as server:
        server.repeats = True
        server.word_times, server.segment_times, server.numbers = times == "words", times != "none", numbers
        assert await a_call(tmp_path, server, 20) == numbered(range(20))


async def test_finals_that_overlap_are_cut_by_the_times_of_their_words(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.overlaps = 2
        server.fault = at({0: 5.0}, reset)
        assert await a_call(tmp_path, server, 30) == numbered(range(30))


@pytest.mark.parametrize("times", ["segments", "none"])
async def test_a_replay_without_word_times_loses_and_repeats_nothing(tmp_path: Path, times: str) -> None:
    async with NumberedWhisper() as server:
        server.word_times, server.segment_times = False, times == "segments"
        server.fault = at({0: 3.1, 1: 4.3, 2: 5.9}, reset)
        assert await a_call(tmp_path, server) == numbered(range(40))


@pytest.mark.parametrize("break_s", [None, 2.0, 4.1])
async def test_finals_out_of_time_order_are_published_in_it(tmp_path: Path, break_s: float | None) -> None:
    async with NumberedWhisper() as server:
        server.reorders = True
        if break_s is not None:
            server.fault = at({0: break_s}, reset)
        assert await a_call(tmp_path, server) == numbered(range(40))


async def test_a_final_whose_predecessor_never_comes_waits_but_not_for_ever(tmp_path: Path) -> None:
    noise = speech(range(40, 44)) + b"\xff" * 12_000
    async with NumberedWhisper() as server:
        endpoint = Endpoint(server.url, "", "v1")

        async def overhear(_: int, connection: Connection, __: ServerConnection) -> None:
            connection.mute = connection.heard_s < len(noise) / 8000

        server.fault = overhear
        async with track(tmp_path, server, endpoints=(endpoint,)) as call:
            began = asyncio.get_running_loop().time()
            call.hear(noise + speech(range(4)) + b"\xff" * 4000)
            async with asyncio.timeout(5):
                while not call.words:
                    await asyncio.sleep(0.01)
            waited = asyncio.get_running_loop().time() - began
            assert hold.WAIT_S <= waited < 4 * hold.WAIT_S
            await call.to_the_end()
        assert call.words == numbered(range(4))


async def test_a_socket_is_relieved_before_the_limit_that_its_server_keeps(tmp_path: Path) -> None:
    """The limit is learned from drops; then a successor is open before it is reached, and nothing drops."""
    limit_s = 40 / SPEED  # of the clock
    async with NumberedWhisper() as server:
        opened: dict[int, float] = {}
        dropped = 0

        async def expire(number: int, _: Connection, socket: ServerConnection) -> None:
            nonlocal dropped
            now = asyncio.get_running_loop().time()
            if now - opened.setdefault(number, now) > limit_s:
                dropped += 1
                await socket.close(1000)

        server.fault = expire
        endpoint = Endpoint(server.url, "", "v1")
        for _ in range(lifespan.PROOFS):
            endpoint.lifespan.dropped(limit_s, now=asyncio.get_running_loop().time() + 10 * _ - 100)
        assert endpoint.lifespan.limit_s == limit_s
        async with track(tmp_path, server, endpoints=(endpoint,)) as call:
            await call.live(speech(range(200)), SPEED)
            await call.to_the_end()
            assert call.words == numbered(range(200))
        assert len(server.connections) >= 2
        assert dropped == 0


async def test_a_limit_is_learned_from_drops_at_the_same_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan, "SHORTEST_S", 5 / SPEED)
    async with NumberedWhisper() as server:
        server.fault = at(dict.fromkeys(range(100), 8.0), closing(1000))
        endpoint = Endpoint(server.url, "", "v1")
        with capture_logs() as logs:
            async with track(tmp_path, server, endpoints=(endpoint,), replay_speed=1.5 * SPEED) as call:
                await call.live(speech(range(200)), SPEED)
                await call.to_the_end()
                assert call.words == numbered(range(200))
        assert [line["event"] for line in logs].count("whisper_limit") == 1
        assert endpoint.lifespan.limit_s == pytest.approx(8 / SPEED, abs=0.2)


GARBAGE: list[str | bytes] = [
    "",
    "{",
    "null",
    "[]",
    '"transcription"',
    "\x00\ud7ff",
    b"\xff\xfe\x00",
    '{"type":"transcription"}',
    '{"type":"transcription","is_final":true,"segments":"none"}',
    '{"type":"transcription","is_final":true,"segments":[null,{"text":7,"start_time":"x"},{"text":""}]}',
    '{"type":"transcription","is_final":true,"segments":[{"text":"","start_time":-1,"end_time":1e400}]}',
    '{"type":"end_audio","body":{"status":"finished"}}',
    '{"type":"health_check","body":[]}',
    '{"type":["end_audio"]}',
    '{"type":"error","body":{"error":{"deep":[1]}}}',
    json.dumps({"type": "session.created", "padding": "x" * 100_000}),
    "[" * 50_000,
]


async def test_garbage_between_the_finals_changes_nothing(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        server.garbage = GARBAGE
        assert await a_call(tmp_path, server, 20) == numbered(range(20))
        assert len(server.connections) == 1


async def test_the_first_choice_comes_back_after_a_final_and_no_word_is_lost(tmp_path: Path) -> None:
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        first.refusing = 503
        endpoints = (Endpoint(first.url, "", "v1"), Endpoint(second.url, "", "v1"))
        with capture_logs() as logs:
            async with track(tmp_path, first, endpoints=endpoints) as call:
                speaking = asyncio.create_task(call.live(speech(range(150)), SPEED))
                while not second.connections or second.connections[0].heard_s < 5:
                    await asyncio.sleep(0.01)
                assert len(first.attempts) == route.TRIES
                first.refusing = 0
                await speaking
                await call.to_the_end()
                assert call.words == numbered(range(150))
        assert (len(first.connections), len(second.connections)) == (1, 1)
        events = [line["event"] for line in logs]
        assert (events.count("whisper_failover"), events.count("whisper_failback")) == (1, 1)
        # At a final: nothing that the second had heard was sent to the first.
        heard_s = first.connections[0].heard_s + second.connections[0].heard_s
        assert heard_s == pytest.approx(len(speech(range(150))) / 8000, abs=1.5)


async def test_an_open_breaker_of_the_first_choice_is_enough_for_a_new_call(tmp_path: Path) -> None:
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        endpoints = (Endpoint(first.url, "", "v1"), Endpoint(second.url, "", "v1"))
        for _ in range(breaker.ENOUGH):
            endpoints[0].breaker.end(
                endpoints[0].breaker.begin(0.0), asyncio.get_running_loop().time(), opened=False
            )
        async with track(tmp_path, first, endpoints=endpoints) as call:
            call.hear(speech(range(4)))
            await call.to_the_end()
            assert call.words == numbered(range(4))
        assert (len(first.attempts), len(second.connections)) == (0, 1)


async def test_a_session_begins_where_an_earlier_process_was_sure(tmp_path: Path) -> None:
    async with NumberedWhisper() as server:
        audio = speech(range(12))
        middle = audio.index(speech(range(4, 8)))
        async with track(tmp_path, server, audio=audio, start=middle) as call:
            assert call.session.resent_until == len(audio)
            call.hear(speech(range(12, 16)))
            await call.to_the_end()
            assert call.words == numbered(range(4, 16))
            recovered = [final.start < call.session.resent_until for final in call.finals]
            assert recovered == [True, True, False]


async def test_partials_show_that_a_server_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LEAST_S", 8 / SPEED)
    async with NumberedWhisper() as server:
        server.partials = True
        endless = speech(range(100), utterance=1000)  # 26 s without a pause, as one utterance
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(endless, SPEED)
            await call.to_the_end()
            assert call.words == numbered(range(100))
        assert len(server.connections) == 1


async def test_speech_that_one_witness_did_not_understand_either_is_had_from_a_later_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LEAST_S", 5 / SPEED)
    async with NumberedWhisper() as server:
        server.mute = {0, 1, 2}
        assert await a_call(tmp_path, server, 160) == numbered(range(160))
        assert len(server.connections) == 5


async def test_speech_that_came_too_late_to_a_server_that_works_is_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "QUIET_S", 10.0)
    monkeypatch.setattr(watermark, "LOUD_S", 20.0)
    monkeypatch.setattr(patience, "LEAST_S", 5 / SPEED)
    monkeypatch.setattr(patience, "MOST_S", 8 / SPEED)
    async with NumberedWhisper() as server:
        server.mute = set(range(5))
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(speech(range(280)), SPEED)
            await call.to_the_end()
            ((start, end, why),) = call.lost
            assert (start, why) == (0, "whisper_silent")
            first = call.finals[0]
            assert end - 8000 < first.start < end + 8000
            assert call.words[-100:] == numbered(range(180, 280))


@pytest.mark.parametrize("words", [0, 4])
async def test_a_call_without_a_word_is_a_gap_and_music_after_words_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: int
) -> None:
    monkeypatch.setattr(watermark, "QUIET_S", 10.0)
    monkeypatch.setattr(watermark, "LOUD_S", 20.0)
    async with NumberedWhisper() as server:
        server.unheard = range(words, 100)
        async with track(tmp_path, server, endpoints=(Endpoint(server.url, "", "v1"),)) as call:
            await call.live(speech(range(100)), SPEED)
            await call.to_the_end()
            assert call.words == numbered(range(words))
            assert [why for *_, why in call.lost] == ([] if words else ["whisper_silent"])
