import json
from pathlib import Path
from typing import Any

import pytest

from bridge.local.twilio.message import Writer
from tests.benchmarks.capacity import __main__ as program
from tests.benchmarks.capacity import page, sheet
from tests.benchmarks.capacity.measured import USUAL, learned, sheet_inputs


def test_the_pages_have_the_figures_that_were_measured() -> None:
    for path in program.PAGES:
        text = path.read_text()
        assert page.filled(text, program.known()) == text, "run python -m tests.benchmarks.capacity"


def test_every_result_follows_from_the_inputs() -> None:
    given = sheet.values(sheet_inputs(program.known()))
    small, large = (sheet.results({**given, "calls": calls}) for calls in (10_000, 20_000))

    assert set(sheet_inputs(program.known())) == set(sheet.MEASURED)
    assert small["sockets"] == 20_000
    assert small["replicas"] == 500
    assert small["in_gbit"] == pytest.approx(3.84)
    assert small["outage_gb"] == 1152
    for result in sheet.RESULTS:
        assert large[result.name] == pytest.approx(2 * small[result.name], rel=0.02), result.name


def test_a_media_message_is_as_long_as_is_assumed() -> None:
    writer = Writer("AC" + "2" * 32, "CA" + "3" * 32, "MZ" + "1" * 32)
    writer._sequence = 12_000
    writer._chunks["inbound"] = 6000
    text = writer.media("inbound", 120_000, bytes(160))
    (assumed,) = (each.value for each in sheet.ASSUMED if each.name == "in_bytes")

    assert len(text) + 8 + 22 + 66 == assumed


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0176, "0.0176"), (3.84, "3.84"), (12, "12"), (134, "134"), (1334, "1,330"), (2_400_000, "2,400,000")],
)
def test_numbers_have_three_digits_that_count(number: float, text: str) -> None:
    assert sheet.shown(number) == text


def level(calls: int, p99: float, cpu: float, *, void: bool = False) -> dict[str, Any]:
    return {
        "calls": calls,
        "delay_ms": {"p50": 1, "p99": p99, "max": p99},
        "void": void,
        "cpu_ms_per_call_minute": cpu,
        "rss_kb_per_call": 80,
    }


def test_what_a_call_costs_is_taken_where_the_bridge_works_hard_and_replaces_what_was_known() -> None:
    levels = [level(100, 5, 90), level(200, 10, 80), level(300, 20, 70), level(220, 9, 1, void=True)]
    part = {
        "tls": True,
        "systems": [
            {"system": "floor", "stopped_by": "delay", "levels": []},
            {"system": "bridge", "stopped_by": "load", "levels": levels},
        ],
        "summary": {"bridge": {"calls_within_ms": {"20": 300, "50": 400}}},
    }
    figures = program.known()

    told = learned(figures, {"tracks": 2, "parts": [part]})

    usual = [one for one in told["bridge"] if all(one[name] == value for name, value in USUAL.items())]
    assert [(one["calls"], one["cpu_ms"], one["within"]["20"]) for one in usual] == [(200, 80, 300)]
    assert "| 300 / 400 or more |" in page.vcpu(told["bridge"])
    assert sheet_inputs(told)["cpu_ms"] == 80
    assert len(told["bridge"]) == len(figures["bridge"])


def test_own_numbers_are_computed_and_change_no_page(capsys: pytest.CaptureFixture[str]) -> None:
    before = [path.read_text() for path in (program.MEASURED, *program.PAGES)]

    assert program.main(["--given", "calls=1000", "tracks=1"]) == 0

    assert "| `sockets` | `calls * tracks` | 1,000 | sockets to Whisper |" in capsys.readouterr().out
    assert [path.read_text() for path in (program.MEASURED, *program.PAGES)] == before


@pytest.mark.parametrize("given", ["call=1", "calls", "calls=many"])
def test_numbers_of_no_use_are_refused(capsys: pytest.CaptureFixture[str], given: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["--given", given])
    assert "must be one of" in capsys.readouterr().err


def test_results_of_something_else_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"sqlite": {}}))
    with pytest.raises(SystemExit, match="2"):
        program.main([str(other)])
    assert f"{other} has no results of these benchmarks" in capsys.readouterr().err
