import os
from pathlib import Path
from typing import Any, cast

from bridge.local.load.ends import Ends, tagged
from bridge.local.load.play import Played, play
from bridge.local.twilio import Script, SimulatedCall, Track
from bridge.serve import opened
from tests.chaos.port import free_port
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, settings
from tests.doubles.numbered import sounds

SPEED = 10


async def played(tmp_path: Path, seconds: float, *, calls: int = 2) -> Played:
    """Calls of so many seconds at a whole bridge, whose ends are here."""
    config = settings(tmp_path, f"ws://127.0.0.1:{free_port()}/websocket", f"http://127.0.0.1:{free_port()}/")
    audio: dict[Track, bytes] = {"inbound": b"\xff" * int(8000 * seconds)}
    async with opened(config, lambda: sounds) as bridge:
        simulated = [
            SimulatedCall(
                ACCOUNT,
                f"http://127.0.0.1:{bridge.port}/twilio/voice",
                tagged(audio, n),
                Script(speed=SPEED),
                public_url=PUBLIC_URL,
            )
            for n in range(calls)
        ]
        ends = Ends(config, [call.report for call in simulated])
        return await play(simulated, 0.01, pids=[os.getpid()], ends=ends)


async def test_calls_are_measured_at_both_ends_of_a_whole_bridge(tmp_path: Path) -> None:
    told = await played(tmp_path, 12)

    assert told.failed == []
    assert told.webhook_problem == ""
    assert told.audio is not None
    assert told.audio["tracks"] == 4
    names = ("delay_ms", "raw_delay_ms", "steady_delay_ms", "steady_raw_delay_ms")
    for spread in (cast("dict[str, float]", told.audio[name]) for name in names):
        assert 0 < spread["p50"] <= spread["p99"] <= spread["max"]
    assert told.webhooks is not None
    assert told.webhooks["finals"] == told.webhooks["events"] - 2 * 2 > 4  # type: ignore[operator]  # counts
    figures: Any = told.as_json()
    assert (figures["ok"], figures["failed"], len(figures["calls"])) == (2, 0, 2)
    assert figures["webhooks"]["final_to_post_ms"]["p50"] > 0
    assert 0 < figures["setup_ms"]["p50"] <= figures["setup_ms"]["max"]
    assert figures["bridge"]["cpu_s"] > 0
    assert figures["bridge"]["calls"] in {1, 2}


async def test_without_ends_and_processes_nothing_is_said_of_them() -> None:
    call = SimulatedCall(ACCOUNT, f"http://127.0.0.1:{free_port()}/twilio/voice", {"inbound": b"\xff" * 160})

    told = await play([call], 0)

    assert len(told.failed) == 1
    assert told.as_json().keys() == {"ok", "failed", "lateness_ms", "void", "setup_ms", "calls"}
    assert told.setup_ms is None
