"""The figures of the outbox for people."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(results: Mapping[str, Any]) -> None:
    """Print what each rate of finals cost, then how quickly the store answers."""
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 170)
    console.print(_levels(results))
    console.print(_answers(results))


def _levels(results: Mapping[str, Any]) -> Table:
    table = _table(
        "Finals published and delivered",
        *("store", "finals\na second", "publish ms\np50 / p99", "to claim ms\np50 / p99"),
        *("to POST ms\np50 / p99", "asked/commits\na final", "CPU ms a final\nstore + bridges", "CPU"),
        *("log B\na final", "disk B\na final", "kept\nup"),
    )
    for name, measured in results.items():
        levels = [(level, "") for level in measured["levels"]]
        levels.append((measured["watermarks_only"], ", watermarks only"))
        levels.append((measured["level_beside_backlog"], ", beside a backlog"))
        for level, kind in levels:
            table.add_row(
                name,
                f"{level['finals_s']}{kind}",
                *(_double(level[what]) for what in ("publish_ms", "commit_to_claim_ms", "commit_to_post_ms")),
                f"{level['statements_per_final']:.1f} / {level['transactions_per_final'] or '?'}",
                f"{level['store_cpu_ms_per_final']:.2f} + {level['bridge_cpu_ms_per_final']:.2f}",
                f"{level['store_cpu_percent']:.0f} + {level['bridges_cpu_percent']:.0f} %",
                str(level["log_bytes_per_final"]),
                str(sum(level["disk_bytes_per_final"].values())),
                "yes" if level["kept_up"] else "no",
            )
        table.add_section()
    return table


def _answers(results: Mapping[str, Any]) -> Table:
    table = _table("Answers, ms p50 / p99", *("store", "beside"), *next(iter(results.values()))["quiet"])
    for name, measured in results.items():
        calls = f"{measured['calls']} live calls"
        for looked, beside in (
            (measured["quiet"], calls),
            (measured["beside_backlog"], f"{calls}, {measured['backlog']} dead lanes"),
        ):
            table.add_row(name, beside, *(_double(answer) for answer in looked.values()))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in {"store", "beside"} else "right", no_wrap=True)
    return table


def _double(spread: Mapping[str, float]) -> str:
    return f"{spread['p50']:.1f} / {spread['p99']:.1f}" if spread else ""
