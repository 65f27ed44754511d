"""The benchmark's results for people."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(results: Mapping[str, Any]) -> None:
    """Print what each level cost, then the systems side by side, and how they sound."""
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 190)
    for part in results["parts"]:
        console.print(_levels(results, part))
        console.print(_summary(part))
    if results["sound"]:
        console.print(_sound(results["sound"]))


def _levels(results: Mapping[str, Any], part: Mapping[str, Any]) -> Table:
    table = _table(
        f"What each level costs, {_tls(part)}",
        *("system", "calls", "delay ms\np50 / p99 / max", "raw delay ms\np50 / p99"),
        *("CPU ms per\ncall-minute", "CPU", "kB per call\n(not journal)"),
        *("final to POST ms\np50 / p99 / max", "load late ms\np50 / p99 / max", "load + sink\nCPU"),
    )
    for climbed in part["systems"]:
        for level in climbed["levels"]:
            table.add_row(
                climbed["system"],
                str(level["calls"]),
                _spread(level["delay_ms"]),
                _spread(level["raw_delay_ms"], "p50", "p99"),
                f"{level['cpu_ms_per_call_minute']:.0f}",
                f"{level['cpu_percent']:.0f} %",
                f"{level['rss_kb_per_call']:.0f} ({level['anonymous_kb_per_call']:.0f})",
                _spread(level["final_to_post_ms"]),
                _spread(level["load_late_ms"]) + (" VOID" if level["void"] else ""),
                f"{level['load_cpu_percent']:.0f} + {level['sink_cpu_percent']:.0f} %",
            )
            minutes = level["delay_p99_ms_by_minute"]
            if len(minutes) > 1:
                told = " ".join(f"{p99:.1f}" for p99 in minutes)
                table.add_row("", "", f"p99 by minute: {told}")
        table.add_section()
    where = "one processor for the system alone" if results["pinned"] else "everything on one processor"
    tracks = "both tracks" if results["tracks"] == 2 else "one track"
    table.caption = f"{results['processors']} processors, {where}; {tracks} of each call"
    return table


def _summary(part: Mapping[str, Any]) -> Table:
    summary = part["summary"]
    levels = next(iter(summary.values()))["cpu_ms_per_call_minute"]
    table = _table(
        f"Side by side, {_tls(part)}",
        "system",
        *(f"CPU, floor = 1\n(tutorial = 1)\nat {calls} calls" for calls in levels),
        *(
            "calls with\np99 <= 20 ms\n(tutorial = 1)",
            "<= 50 ms",
            "stopped\nby",
            "kB per call\n(not journal)",
        ),
        *("delay ms, light\np50 / p99", "raw", "at 70 %\np50 / p99", "raw", "final to POST ms\np50 / p99"),
    )
    for name, told in summary.items():
        table.add_row(
            name,
            *(
                _ratio(told["cpu_ratio"]["floor"][calls]) + _beside(told["cpu_ratio"]["tutorial"][calls])
                for calls in levels
            ),
            *(
                f"{calls}{_beside(told['calls_ratio']['tutorial'][limit])}"
                for limit, calls in told["calls_within_ms"].items()
            ),
            told["stopped_by"],
            ""
            if told["rss_kb_per_call"] is None
            else f"{told['rss_kb_per_call']:.0f} ({told['anonymous_kb_per_call']:.0f})",
            *(
                _told(told[when], what)
                for when in ("light", "at_70_percent")
                for what in ("delay_ms", "raw_delay_ms")
            ),
            _told(told["final_to_post"], "final_to_post_ms"),
        )
    return table


def _sound(sounds: Mapping[str, Any]) -> Table:
    table = _table(
        "Sound at Whisper, against an ideal upsampling",
        *("system", "SNR dB", "ripple dB\n300 to 3400 Hz", "loudest image\ndB", "delay ms"),
    )
    for name, figures in sounds.items():
        table.add_row(name, *(f"{value:g}" for value in (figures or {}).values()))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "system" else "right", no_wrap=True)
    return table


def _tls(part: Mapping[str, Any]) -> str:
    return "with TLS to Whisper" if part["tls"] else "without TLS"


def _spread(spread: Mapping[str, float] | None, *parts: str) -> str:
    return " / ".join(f"{spread[part]:.1f}" for part in parts or spread) if spread else ""


def _told(told: Mapping[str, Any] | None, name: str) -> str:
    return f"{_spread(told[name], 'p50', 'p99')} ({told['calls']})" if told else ""


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _beside(ratio: float | None) -> str:
    return "" if ratio is None else f" ({ratio:.2f})"
