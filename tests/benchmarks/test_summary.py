from typing import Any

from tests.benchmarks import summary


def level(
    calls: int, p99: float | None, cpu: float, *, void: bool = False, post: float = 0
) -> dict[str, Any]:
    return {
        "calls": calls,
        "delay_ms": None if p99 is None else {"p50": p99 / 2, "p99": p99, "max": p99},
        "raw_delay_ms": None if p99 is None else {"p50": 20, "p99": 40 + p99, "max": 40 + p99},
        "cpu_ms_per_call_minute": cpu,
        "rss_kb_per_call": 50 + calls,
        "anonymous_kb_per_call": 40,
        "final_to_post_ms": {"p50": post, "p99": post, "max": post} if post else None,
        "void": void,
    }


FLOOR = {"system": "floor", "stopped_by": "delay", "levels": [level(10, 4, 200), level(100, 10, 100)]}
BRIDGE = {
    "system": "bridge",
    "stopped_by": "load",
    "levels": [
        level(10, 5, 150, post=2),
        level(100, 19, 75, post=3),
        level(200, 21, 70, post=4),
        level(300, 18, 60, void=True, post=5),
    ],
}


TUTORIAL = {"system": "tutorial", "stopped_by": "delay", "levels": [level(100, 16, 150), level(200, 90, 150)]}


def test_ratios_are_to_the_others_at_the_same_level() -> None:
    told = summary.of([FLOOR, TUTORIAL, BRIDGE], [100, 300])

    assert told["floor"]["cpu_ratio"]["floor"] == {"100": 1, "300": None}
    assert told["bridge"]["cpu_ms_per_call_minute"] == {
        "100": 75,
        "300": None,
    }  # the void level does not count
    assert told["bridge"]["cpu_ratio"] == {
        "floor": {"100": 0.75, "300": None},
        "tutorial": {"100": 0.5, "300": None},
    }
    assert told["bridge"]["calls_ratio"]["tutorial"] == {"20": 1, "50": 2}


def test_without_anything_to_compare_with_there_are_no_ratios() -> None:
    told = summary.of([BRIDGE], [100])["bridge"]

    assert told["cpu_ratio"] == {"floor": {"100": None}, "tutorial": {"100": None}}
    assert told["calls_ratio"]["floor"] == {"20": None, "50": None}


def test_the_most_calls_are_those_up_to_which_every_level_keeps_the_limit() -> None:
    told = summary.of([BRIDGE], [100])["bridge"]

    assert told["calls_within_ms"] == {"20": 100, "50": 200}
    assert told["stopped_by"] == "load"
    assert summary.largest({"levels": [level(10, None, 1), level(20, 1, 1)]}, 20) == 0


def test_delays_are_told_light_and_at_70_percent_and_finals_while_it_is_busy() -> None:
    told = summary.of([BRIDGE], [100])["bridge"]

    assert told["light"] == {
        "calls": 10,
        "delay_ms": {"p50": 2.5, "p99": 5, "max": 5},
        "raw_delay_ms": {"p50": 20, "p99": 45, "max": 45},
    }
    assert told["at_70_percent"]["calls"] == 100
    assert told["final_to_post"]["calls"] == 200  # the void level does not count
    assert told["rss_kb_per_call"] == 250


def test_a_system_that_took_no_call_has_no_figures() -> None:
    told = summary.of([{"system": "tutorial", "stopped_by": "refused", "levels": []}], [100])["tutorial"]

    assert (told["light"], told["at_70_percent"], told["final_to_post"]) == (None, None, None)
    assert told["calls_within_ms"] == {"20": 0, "50": 0}
