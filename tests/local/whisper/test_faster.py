"""faster-whisper itself, with a model of random weights; skipped where it is not installed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.errors import BridgeError
from bridge.local.whisper.engine import EngineError, Options
from bridge.local.whisper.faster import FasterWhisperEngine, _segment

NOISE = bytes(range(256)) * 125  # 1 s


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[FasterWhisperEngine]:
    pytest.importorskip("faster_whisper", reason="an extra: pip install 'whisper-bridge[whisper]'")
    from tests.doubles.tiny_whisper import build  # noqa: PLC0415 - needs ctranslate2

    engine = FasterWhisperEngine(str(build(tmp_path / "model")))
    await engine.open()
    yield engine
    await engine.close()


async def test_a_model_folder_is_loaded_and_decodes(engine: FasterWhisperEngine) -> None:
    utterance = engine.utterance(Options())
    utterance.feed(NOISE)
    recognition = await utterance.final()
    assert recognition.language == "en"
    for segment in recognition.segments:
        assert segment.log_prob is not None
        assert 0 <= segment.start_s <= segment.end_s
        assert all(isinstance(word.start_s, float) for word in segment.words)


async def test_partials_give_way_to_finals(engine: FasterWhisperEngine) -> None:
    one, other = engine.utterance(Options()), engine.utterance(Options(prompt="Acme"))
    one.feed(NOISE)
    other.feed(NOISE)
    final = asyncio.create_task(one.final())
    await asyncio.sleep(0)
    busy = engine.busy
    assert busy
    assert await other.partial() is None
    await final
    busy = engine.busy
    assert not busy
    assert await other.partial() is not None
    other.cancel()


async def test_an_english_model_is_english_whatever_it_is_asked_for(engine: FasterWhisperEngine) -> None:
    utterance = engine.utterance(Options(language="xx"))
    utterance.feed(NOISE)
    assert (await utterance.final()).language == "en"


async def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("faster_whisper", reason="an extra: pip install 'whisper-bridge[whisper]'")
    with pytest.raises(BridgeError) as caught:
        await FasterWhisperEngine(str(tmp_path)).open()
    assert str(caught.value).startswith(
        f"The Whisper model '{tmp_path}' can be neither loaded nor downloaded"
    )
    assert "\n" not in str(caught.value)


async def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(BridgeError, match=r"pip install 'whisper-bridge\[whisper\]'"):
        await FasterWhisperEngine().open()


async def test_an_engine_that_was_stopped_says_so() -> None:
    engine = FasterWhisperEngine()
    await engine.close()
    with pytest.raises(EngineError, match="stopped"):
        await engine.utterance(Options()).final()


@pytest.mark.parametrize(
    ("log_prob", "no_speech", "compression", "made_up"),
    [(-0.3, 0.1, 1.2, False), (-1.2, 0.9, 1.2, True), (-0.3, 0.9, 1.2, False), (-0.3, 0.1, 3.0, True)],
)
def test_made_up_text_is_marked(log_prob: float, no_speech: float, compression: float, made_up: bool) -> None:
    heard = SimpleNamespace(
        text=" hello", start=0.0, end=1.0, words=None, avg_logprob=log_prob, no_speech_prob=no_speech,
        compression_ratio=compression,
    )  # fmt: skip
    assert _segment(heard).possible_hallucination is made_up
    assert _segment(heard).text == "hello"
