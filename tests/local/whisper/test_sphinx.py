"""Real recognition, in real processes."""

import asyncio
import os
import signal
import sys
import time

import pytest

from bridge.errors import BridgeError
from bridge.local import speech
from bridge.local.score import word_error_rate
from bridge.local.whisper import sphinx
from bridge.local.whisper.engine import EngineError, Options
from bridge.local.whisper.server import WhisperServer
from bridge.local.whisper.sphinx import SphinxEngine
from tests.doubles.telephone import frames, telephone
from tests.doubles.whisper_client import finals, session

pytest.importorskip("pocketsphinx", reason="the recogniser is an extra: pip install 'whisper-bridge[local]'")

SENTENCE = next(line for line in speech.script() if line.text == "I will tell the driver.")
DRIVER = telephone(speech.AGENT)[
    (SENTENCE.start_ms - 250) // 32 * 1024 : (SENTENCE.end_ms + 350) // 32 * 1024
]
"""That sentence alone."""


async def recognise(url: str, pcm: bytes) -> list[str]:
    async with session(url) as client:
        await client.hear(pcm)
        return finals(await client.rest())


async def test_the_demo_call_is_understood_and_the_loop_stays_free() -> None:
    worst = 0.0

    async def watch() -> None:
        nonlocal worst
        while True:
            before = time.thread_time()  # not the wall: a busy machine is no fault of ours
            await asyncio.sleep(0.005)
            worst = max(worst, time.thread_time() - before)

    async with WhisperServer(SphinxEngine()) as server:
        watcher = asyncio.create_task(watch())
        caller, agent = await asyncio.gather(
            recognise(server.url, telephone(speech.CALLER)), recognise(server.url, telephone(speech.AGENT))
        )
        watcher.cancel()
        # Decoding inside the server would keep its loop busy for 0.3 s and more at a time.
        assert worst < 0.2
        assert word_error_rate(speech.text("caller"), " ".join(caller)).rate <= 0.1
        assert word_error_rate(speech.text("agent"), " ".join(agent)).rate <= 0.1
        # More calls than decoders: each still gets all of its own words.
        calls = await asyncio.gather(*(recognise(server.url, DRIVER) for _ in range(8)))
        assert calls == [calls[0]] * 8
        assert calls[0] != []


async def test_a_dead_process_costs_no_words() -> None:
    engine = SphinxEngine(processes=1, decoders=1)
    await engine.open()
    try:
        whole = engine.utterance(Options())
        for frame in frames(DRIVER):
            whole.feed(frame)
        expected = await whole.final()

        utterance, waiting = engine.utterance(Options()), engine.utterance(Options())
        pieces = list(frames(DRIVER))
        for frame in pieces[:20]:
            utterance.feed(frame)
            waiting.feed(frame)
        assert await utterance.partial() is not None
        assert await waiting.partial() is None
        assert utterance.worker is not None
        os.kill(utterance.worker.pid, signal.SIGKILL)
        for frame in pieces[20:]:
            utterance.feed(frame)
            waiting.feed(frame)
        async with asyncio.timeout(15):
            first, second = await asyncio.gather(utterance.final(), waiting.final())
        assert first == second == expected
    finally:
        await engine.close()


async def test_an_utterance_that_kills_every_process_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sphinx, "MAX_ATTEMPTS", 1)
    engine = SphinxEngine(processes=1, decoders=1)
    await engine.open()
    try:
        utterance = engine.utterance(Options())
        assert utterance.worker is not None
        os.kill(utterance.worker.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="failed on this utterance"):
            await utterance.final()
        healthy = engine.utterance(Options())
        healthy.feed(DRIVER)
        async with asyncio.timeout(15):
            assert (await healthy.final()).segments
    finally:
        await engine.close()


async def test_an_engine_whose_processes_keep_dying_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sphinx, "MAX_RESTARTS", 0)
    engine = SphinxEngine(processes=1, decoders=1)
    await engine.open()
    try:
        utterance, waiting = engine.utterance(Options()), engine.utterance(Options())
        assert utterance.worker is not None
        os.kill(utterance.worker.pid, signal.SIGKILL)
        for lost in (utterance, waiting):
            with pytest.raises(EngineError, match="does not run any more"):
                await lost.final()
        with pytest.raises(EngineError, match="does not run any more"):
            await engine.utterance(Options()).final()
    finally:
        await engine.close()


async def test_dropped_utterances_give_their_decoder_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sphinx, "MAX_WAITING", 1)
    engine = SphinxEngine(processes=1, decoders=1)
    await engine.open()
    try:
        decoding, waiting, refused = (engine.utterance(Options()) for _ in range(3))
        with pytest.raises(EngineError, match="too much to do"):
            await refused.final()
        decoding.feed(DRIVER[:40_960])
        decoding.cancel()
        waiting.feed(DRIVER)
        asked = asyncio.create_task(waiting.final())
        await asyncio.sleep(0)
        asked.cancel()  # after it was asked for its final
        waiting.cancel()
        after = engine.utterance(Options())
        after.feed(DRIVER)
        async with asyncio.timeout(10):
            assert (await after.final()).segments
    finally:
        await engine.close()


async def test_closing_fails_what_is_under_way() -> None:
    engine = SphinxEngine(processes=1, decoders=1)
    await engine.open()
    decoding, waiting = engine.utterance(Options()), engine.utterance(Options())
    await engine.close()
    for utterance in (decoding, waiting):
        with pytest.raises(EngineError, match="stopped"):
            await utterance.final()
    await engine.close()


async def test_processes_that_cannot_start_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BridgeError, match="pocketsphinx cannot be used: its process ended with status 1"):
        await SphinxEngine(processes=1).open()
