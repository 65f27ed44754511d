"""The benchmark's results for people."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(results: Mapping[str, Any]) -> None:
    """Print what each level cost, then the systems side by side."""
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 150)
    console.print(_levels(results))
    console.print(_summary(results["summary"]))


def _levels(results: Mapping[str, Any]) -> Table:
    table = _table(
        "What each level costs",
        *("system", "calls", "delay ms\np50 / p99 / max", "CPU ms per\ncall-minute", "CPU"),
        *(
            "kB per call\n(not journal)",
            "final to POST ms\np50 / p99 / max",
            "load late ms\np50 / p99 / max",
            "load\nCPU",
        ),
    )
    for climbed in results["systems"]:
        for level in climbed["levels"]:
            table.add_row(
                climbed["system"],
                str(level["calls"]),
                _triple(level["delay_ms"]),
                f"{level['cpu_ms_per_call_minute']:.0f}",
                f"{level['cpu_percent']:.0f} %",
                f"{level['rss_kb_per_call']:.0f} ({level['anonymous_kb_per_call']:.0f})",
                _triple(level["final_to_post_ms"]),
                _triple(level["load_late_ms"]) + (" VOID" if level["void"] else ""),
                f"{level['load_cpu_percent']:.0f} + {level['sink_cpu_percent']:.0f} %",
            )
        table.add_section()
    where = "one processor for the system alone" if results["pinned"] else "everything on one processor"
    tls = "with TLS to Whisper" if results["tls"] else "without TLS"
    tracks = "both tracks" if results["tracks"] == 2 else "one track"
    table.caption = f"{results['processors']} processors, {where}; {tracks} of each call, {tls}"
    return table


def _summary(summary: Mapping[str, Any]) -> Table:
    ratios = next(iter(summary.values()))["cpu_ratio"]
    table = _table(
        "Side by side",
        "system",
        *(f"CPU, floor = 1\nat {calls} calls" for calls in ratios),
        *("calls with\np99 <= 20 ms", "<= 50 ms", "stopped\nby", "kB per call\n(not journal)"),
        *("delay ms, light\np50 / p99", "at 70 %\np50 / p99", "final to POST ms\np50 / p99"),
    )
    for name, told in summary.items():
        table.add_row(
            name,
            *("" if ratio is None else f"{ratio:.2f}" for ratio in told["cpu_ratio"].values()),
            *(str(calls) for calls in told["calls_within_ms"].values()),
            told["stopped_by"],
            ""
            if told["rss_kb_per_call"] is None
            else f"{told['rss_kb_per_call']:.0f} ({told['anonymous_kb_per_call']:.0f})",
            *(_double(told[what], "delay_ms") for what in ("light", "at_70_percent")),
            _double(told["final_to_post"], "final_to_post_ms"),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    return table


def _triple(spread: Mapping[str, float] | None) -> str:
    return " / ".join(f"{value:.1f}" for value in spread.values()) if spread else ""


def _double(told: Mapping[str, Any] | None, name: str) -> str:
    if told is None:
        return ""
    spread = told[name]
    return f"{spread['p50']:.1f} / {spread['p99']:.1f} ({told['calls']})"
