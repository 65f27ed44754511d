import importlib.util

import pytest

from bridge.errors import BridgeError, UsageError
from bridge.local.whisper.engine import EngineName, choose
from bridge.local.whisper.faster import FasterWhisperEngine
from bridge.local.whisper.sphinx import SphinxEngine


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    there: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    return there


@pytest.mark.parametrize(
    ("there", "name", "model", "expected"),
    [
        ({"pocketsphinx", "faster_whisper"}, "auto", None, SphinxEngine),
        ({"pocketsphinx"}, "auto", None, SphinxEngine),
        ({"faster_whisper"}, "auto", None, FasterWhisperEngine),
        ({"pocketsphinx", "faster_whisper"}, "auto", "tiny.en", FasterWhisperEngine),
        ({"pocketsphinx", "faster_whisper"}, "pocketsphinx", None, SphinxEngine),
        ({"pocketsphinx", "faster_whisper"}, "faster-whisper", None, FasterWhisperEngine),
    ],
)
def test_the_choice(
    installed: set[str], there: set[str], name: EngineName, model: str | None, expected: type
) -> None:
    installed |= there
    assert isinstance(choose(name, model), expected)


@pytest.mark.parametrize(
    ("name", "model", "says"),
    [
        ("auto", None, "No recogniser is installed: pip install 'whisper-bridge[local]'"),
        ("pocketsphinx", None, "pocketsphinx is not installed: pip install 'whisper-bridge[local]'"),
        ("faster-whisper", None, "faster-whisper is not installed: pip install 'whisper-bridge[whisper]'"),
        ("auto", "tiny.en", "faster-whisper is not installed: pip install 'whisper-bridge[whisper]'"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_what_is_missing_is_named(name: EngineName, model: str | None, says: str) -> None:
    with pytest.raises(BridgeError) as caught:
        choose(name, model)
    assert str(caught.value) == says
    assert caught.value.exit_code == 1


def test_a_wrong_choice_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="no engine named 'vosk'"):
        choose("vosk")  # type: ignore[arg-type]  # what a wrong caller would do
    with pytest.raises(UsageError, match="brings its own model"):
        choose("pocketsphinx", "small.en")


def test_names_are_honest() -> None:
    assert "pocketsphinx" in SphinxEngine().name
    assert FasterWhisperEngine("small.en").name == "faster-whisper (small.en)"
