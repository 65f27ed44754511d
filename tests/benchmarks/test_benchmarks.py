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


async def test_every_system_gives_figures() -> None:
    results = await measured("--calls", "2", "--seconds", "1", "--top", "--plain")

    assert results["tracks"] == 1
    (part,) = results["parts"]
    assert not part["tls"]
    assert [climbed["system"] for climbed in part["systems"]] == ["floor", "tutorial", "bridge"]
    for climbed in part["systems"]:
        assert (climbed["calls_failed"], climbed["first_problem"]) == (0, "")
        assert (climbed["frames_lost"], climbed["stopped_by"]) == (0, "top")
        (level,) = climbed["levels"]
        assert level["calls"] == 2
        assert abs(level["chunks"] - 2 * level["seconds"] / 0.032) <= 4
        for spread in (level["delay_ms"], level["raw_delay_ms"], level["load_late_ms"]):
            assert 0 <= spread["p50"] <= spread["p99"] <= spread["max"]
        assert level["raw_delay_ms"]["p50"] >= level["delay_ms"]["p50"] + 10
        assert level["delay_p99_ms_by_minute"] == [level["delay_ms"]["p99"]]
        assert level["void"] is (level["load_late_ms"]["p99"] > 5)
        assert level["cpu_ms_per_call_minute"] > 0
        assert level["load_cpu_percent"] > 0
        assert level["sink_cpu_percent"] > 0
    assert part["summary"].keys() == {"floor", "tutorial", "bridge"}
    sound = results["sound"]
    assert sound["bridge"]["snr_db"] > 40
    assert sound["bridge"]["images_db"] < -70
    assert sound["tutorial"]["snr_db"] < 15


async def test_one_system_climbs_with_both_tracks_and_tls_and_posts_its_finals() -> None:
    results = await measured(
        "bridge", "--calls", "1", "2", "--seconds", "2", "--tracks", "2", "--top", "--tls"
    )

    (part,) = results["parts"]
    assert part["tls"]
    (climbed,) = part["systems"]
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
