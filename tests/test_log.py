import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from bridge import log


@pytest.fixture(autouse=True)
def undone() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


def test_lines_are_json_on_stderr_with_the_bound_ids(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.get("bridge.call.call").bind(call_sid="CA1").info("call_ended", finals=3)
    captured = capsys.readouterr()
    line = json.loads(captured.err)
    assert captured.out == ""
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "module": "bridge.call.call",
        "call_sid": "CA1",
        "finals": 3,
        "event": "call_ended",
        "level": "info",
    }


def test_the_level_holds_and_libraries_are_heard_from_warnings_on(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(logging.WARNING)
    log.get("x").info("not_shown")
    logging.getLogger("aiohttp").info("not shown")
    logging.getLogger("aiohttp").warning("shown")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line) | {"timestamp": ""} == {"event": "shown", "level": "warning", "timestamp": ""}


def test_an_exception_becomes_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.get("x").error("failed", exc_info=ValueError("why"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: why" in json.loads(line)["exception"]


def test_every_line_of_a_worker_bears_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure(worker=2)
    log.get("x").info("shown")
    logging.getLogger("aiohttp").warning("shown")
    assert [json.loads(line)["worker"] for line in capsys.readouterr().err.splitlines()] == [2, 2]
    log.configure()
