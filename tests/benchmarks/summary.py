"""What is said of the systems side by side, from what was measured of each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Climbed = Mapping[str, Any]
"""What `Staircase.climb` returns."""

LIMITS_MS: Final = (20, 50)
"""Service delays at p99 that calls are counted for."""

LOADED: Final = 0.7
"""The share of its largest number of calls at which a system works hard, and still well."""

BUSY_CALLS: Final = 300
"""While so many run, the way from a final to its webhook is told."""

YARDSTICKS: Final = ("floor", "tutorial")
"""What the others are compared with."""


def of(climbed: Sequence[Climbed], levels: Iterable[int]) -> dict[str, dict[str, Any]]:
    """System -> its figures; None where it did not come so far, or there is nothing to compare with."""
    yardsticks = {name: _named(climbed, name) for name in YARDSTICKS}
    return {one["system"]: _one(one, yardsticks, list(levels)) for one in climbed}


def largest(climbed: Climbed, limit_ms: float) -> int:
    """The most calls up to which every level keeps the limit; 0: none does."""
    calls = 0
    for level in climbed["levels"]:
        if level["void"] or level["delay_ms"] is None or level["delay_ms"]["p99"] > limit_ms:
            break
        calls = level["calls"]
    return calls


def _one(climbed: Climbed, yardsticks: Mapping[str, Climbed | None], levels: Sequence[int]) -> dict[str, Any]:
    good = [level for level in climbed["levels"] if level["delay_ms"] and not level["void"]]
    most = {str(limit): largest(climbed, limit) for limit in LIMITS_MS}
    loaded = _nearest(good, LOADED * most[str(LIMITS_MS[0])])
    busy = _nearest([level for level in good if level["final_to_post_ms"]], BUSY_CALLS)
    return {
        "cpu_ms_per_call_minute": {str(calls): _cost(climbed, calls) for calls in levels},
        "cpu_ratio": {
            name: {str(calls): _ratio(_cost(climbed, calls), _cost(other, calls)) for calls in levels}
            for name, other in yardsticks.items()
        },
        "calls_within_ms": most,
        "calls_ratio": {
            name: {
                limit: _ratio(calls, largest(other, int(limit)) if other else None)
                for limit, calls in most.items()
            }
            for name, other in yardsticks.items()
        },
        "stopped_by": climbed["stopped_by"],
        "rss_kb_per_call": good[-1]["rss_kb_per_call"] if good else None,
        "anonymous_kb_per_call": good[-1]["anonymous_kb_per_call"] if good else None,
        "light": _told(good[0], "delay_ms", "raw_delay_ms") if good else None,
        "at_70_percent": _told(loaded, "delay_ms", "raw_delay_ms") if loaded else None,
        "final_to_post": _told(busy, "final_to_post_ms") if busy else None,
    }


def _named(climbed: Sequence[Climbed], name: str) -> Climbed | None:
    return next((one for one in climbed if one["system"] == name), None)


def _cost(climbed: Climbed | None, calls: int) -> float | None:
    """Processor time at a level; None if it was not measured."""
    levels = climbed["levels"] if climbed else ()
    good = (level for level in levels if level["calls"] == calls and not level["void"])
    return next((level["cpu_ms_per_call_minute"] for level in good), None)


def _ratio(one: float | None, other: float | None) -> float | None:
    return round(one / other, 3) if one is not None and other else None


def _nearest(levels: Sequence[Mapping[str, Any]], calls: float) -> Mapping[str, Any] | None:
    return min(levels, key=lambda level: abs(level["calls"] - calls), default=None)


def _told(level: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {"calls": level["calls"], **{name: level[name] for name in names}}
