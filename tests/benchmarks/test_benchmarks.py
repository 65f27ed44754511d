import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import __main__ as benchmarks


async def measured(*arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks", *arguments),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(50):
            line, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, told
    results: dict[str, Any] = json.loads(line)
    return results


async def test_every_system_gives_figures_with_tls_too() -> None:
    results = await measured("--calls", "2", "--seconds", "1", "--tls", "--top")

    assert [climbed["system"] for climbed in results["systems"]] == ["floor", "tutorial", "bridge"]
    assert (results["tls"], results["tracks"]) == (True, 1)
    for climbed in results["systems"]:
        assert (climbed["calls_failed"], climbed["first_problem"]) == (0, "")
        assert (climbed["frames_lost"], climbed["stopped_by"]) == (0, "top")
        (level,) = climbed["levels"]
        assert level["calls"] == 2
        assert abs(level["chunks"] - 2 * level["seconds"] / 0.032) <= 4
        for spread in (level["delay_ms"], level["load_late_ms"]):
            assert 0 <= spread["p50"] <= spread["p99"] <= spread["max"]
        assert level["void"] is (level["load_late_ms"]["p99"] > 5)
        assert level["cpu_ms_per_call_minute"] > 0
        assert level["load_cpu_percent"] > 0
        assert level["sink_cpu_percent"] > 0
    assert results["summary"].keys() == {"floor", "tutorial", "bridge"}
    assert results["summary"]["bridge"].keys() == {
        *("cpu_ratio", "calls_within_ms", "stopped_by", "rss_kb_per_call", "anonymous_kb_per_call"),
        *("light", "at_70_percent", "final_to_post"),
    }


async def test_one_system_climbs_with_both_tracks_and_posts_its_finals() -> None:
    results = await measured("bridge", "--calls", "1", "2", "--seconds", "2", "--tracks", "2", "--top")

    (climbed,) = results["systems"]
    assert climbed["frames_lost"] == climbed["finals_missing"] == 0
    assert [level["calls"] for level in climbed["levels"]] == [1, 2]
    posted = [level["final_to_post_ms"] for level in climbed["levels"] if level["finals"]]
    assert posted
    assert all(spread["p50"] > 0 for spread in posted)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--calls", "0"], "must be a whole number from 1 to"),
        (["--calls", "2001"], "must be a whole number from 1 to"),
        (["--seconds", "1.5"], "must be a whole number from 1 to"),
        (["ceiling"], "there is no system ceiling: choose from floor, tutorial, bridge"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmarks.main(arguments)
    assert sentence in capsys.readouterr().err
