"""The few figures of the benchmarks that pages go on with."""

from collections.abc import Mapping
from typing import Any, Final

from tests.benchmarks.store.climb import BITE
from tests.benchmarks.summary import LIMITS_MS, LOADED

Figures = dict[str, Any]
"""`where`: on what machine; `bridge`: what a call costs, a list; `stores`: what each store does, and costs, by name."""

USUAL: Final = {"tracks": 2, "tls": True, "partials": False}
"""How the calls are taken that the sheet tells of."""

AT_ONCE_MS = 100.0
"""A final that is posted later than this after its commit belongs to a backlog."""


def learned(figures: Figures, results: Mapping[str, Any]) -> Figures:
    """The figures with what these results tell: of `tests.benchmarks`, or of `tests.benchmarks.store`."""
    if "parts" not in results:
        found = {name: _store(measured) for name, measured in results.items()}
        return {**figures, "stores": figures["stores"] | found}
    calls = _bridge(results)
    kinds = [_kind(one) for one in calls]
    return {**figures, "bridge": [one for one in figures["bridge"] if _kind(one) not in kinds] + calls}


def sheet_inputs(figures: Figures) -> dict[str, float]:
    """What was measured, by the names of the sheet's inputs."""
    usual = next(one for one in figures["bridge"] if _kind(one) == _kind(USUAL))
    return {
        "cpu_ms": usual["cpu_ms"],
        "call_kb": usual["call_kb"],
        **figures["stores"]["postgresql"]["costs"],
    }


def _bridge(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a call costs: of each part, at the level where the bridge works hard, and still well."""
    found = []
    for part in results["parts"]:
        climbed = next(one for one in part["systems"] if one["system"] == "bridge")
        within = part["summary"]["bridge"]["calls_within_ms"]
        aim = LOADED * within[str(LIMITS_MS[0])]
        good = [level for level in climbed["levels"] if level["delay_ms"] and not level["void"]]
        level = min(good, key=lambda level: abs(level["calls"] - aim))
        found.append(
            {
                "tracks": results["tracks"],
                "tls": part["tls"],
                "partials": results.get("partials", False),
                "calls": level["calls"],
                "cpu_ms": level["cpu_ms_per_call_minute"],
                "call_kb": level["rss_kb_per_call"],
                "within": within,
                "stopped": climbed["stopped_by"] == "delay",
            }
        )
    return found


def _store(measured: Mapping[str, Any]) -> dict[str, Any]:
    """What a store does and costs at the highest rate of finals that it kept up with."""
    levels = measured["levels"]
    top = next((level for level in reversed(levels) if _keeps_up(level)), levels[0])
    marks, quiet, purge = measured["watermarks_only"], measured["quiet"], measured["purge"]
    return {
        "finals_s": top["finals_s"],
        "stopped": top is not levels[-1],
        "cpu_percent": top["store_cpu_percent"] + top["bridges_cpu_percent"],
        "publish_ms": top["publish_ms"],
        "commit_to_post_ms": top["commit_to_post_ms"],
        "calls": measured["calls"],
        "calls_of_a_node": measured["calls_of_a_node"],
        "backlog": measured["backlog"],
        "quiet": {name: answer["p50"] for name, answer in quiet.items()},
        "beside_backlog": {name: answer["p50"] for name, answer in measured["beside_backlog"].items()},
        "costs": {
            "event_ms": top["store_cpu_ms_per_final"],
            "purge_ms": sum(kind["store_cpu_ms"] for kind in purge.values()) / BITE,
            "event_log": top["log_bytes_per_final"],
            "event_disk": sum(top["disk_bytes_per_final"].values()),
            "event_body": measured["body_bytes"],
            "mark_ms": marks["store_cpu_ms_per_final"],
            "mark_log": marks["log_bytes_per_final"],
            "look_ms": (quiet["claim_of_none"]["store_cpu_ms"] + quiet["next_due"]["store_cpu_ms"]) / 2,
            "count_ms": measured["beside_backlog"]["stats"]["store_cpu_ms"],
        },
    }


def _kind(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(one[name] for name in USUAL)


def _keeps_up(level: Mapping[str, Any]) -> bool:
    """Whether as many were posted as were stored, and nearly at once."""
    return bool(level["kept_up"] and level["commit_to_post_ms"]["p50"] <= AT_ONCE_MS)
