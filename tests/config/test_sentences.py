"""Every way in which a value can be wrong has its sentence."""

from typing import Any

import pytest
from pydantic import ValidationError

from bridge.config import Config
from bridge.config.sentences import KEYS, dotted, problem, suggestion


def test_keys() -> None:
    assert ("whisper", "vad", "threshold") in KEYS
    assert ("numbers",) in KEYS
    assert ("server",) not in KEYS


def test_dotted() -> None:
    assert dotted(("numbers", 0, "vad", "threshold")) == "numbers[0].vad.threshold"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("server.prot", "server.port"),
        ("server.auth_token", "twilio.auth_token"),
        ("sever.prot", "server.port"),
        ("threshold", "whisper.vad.threshold"),
        ("vad.threshold", "whisper.vad.threshold"),
        ("webhooks.url", "webhook.url"),
        ("twilio.xyzzy", ""),
        ("", ""),
    ],
)
def test_suggestions(key: str, meant: str) -> None:
    assert ".".join(suggestion(tuple(key.split("."))) or ()) == meant


@pytest.mark.parametrize("value", [None, True, 1, -1, 1.5, "", "x", [], [[]], {}, {"x": 1}, [{"number": 1}]])
def test_no_value_is_without_a_sentence(value: Any) -> None:
    for key in KEYS:
        values: dict[str, Any] = {key[-1]: value}
        for table in reversed(key[:-1]):
            values = {table: values}
        try:
            Config.model_validate(values)
        except ValidationError as error:
            for each in error.errors():
                path, sentence = problem(each)
                assert sentence != "has a value that cannot be used", (path, each["type"])
