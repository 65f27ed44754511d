"""The program: one line for each scenario, and an exit code that a machine can read."""

import re
from pathlib import Path

import pytest

from tests.chaos import __main__ as program
from tests.chaos.scenario import SCENARIOS, Lacking, load

FOLDER = Path(__file__).parent


def test_every_scenario_is_there_and_has_a_small_size_in_the_tests() -> None:
    for name in SCENARIOS:
        load(name)
        assert (FOLDER / f"test_{name}.py").exists()
    assert {
        path.stem
        for path in FOLDER.glob("*.py")
        if re.search(r"^async def run\(", path.read_text(), re.MULTILINE)
    } <= set(SCENARIOS)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, r"torn_log +\d+\.\d s  7 images: passed\n"),
        (AssertionError("one is missing"), 1, r"torn_log +\d+\.\d s  FAILED: one is missing\n"),
        (Lacking("PostgreSQL is not here."), 0, r"torn_log +\d+\.\d s  skipped: PostgreSQL is not here\.\n"),
        (TimeoutError(), 1, r"torn_log +\d+\.\d s  FAILED: it did not end.*\n"),
    ],
)
def test_one_line_for_each(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception | None,
    code: int,
    line: str,
) -> None:
    async def run(directory: Path) -> str:
        assert directory.name.startswith("whisper-bridge-chaos-")
        if error is not None:
            raise error
        return "7 images"

    monkeypatch.setattr(program, "load", lambda _: run)
    assert program.main(["torn_log"]) == code
    assert re.fullmatch(line, capsys.readouterr().out)


def test_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["nothing"])
    assert "there is no scenario nothing: choose from sqlite_kills" in capsys.readouterr().err
