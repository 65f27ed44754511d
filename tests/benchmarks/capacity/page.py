"""The tables of `deploy/capacity.md` and of the README, and how they get into a page."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from tests.benchmarks.capacity import sheet
from tests.benchmarks.capacity.measured import Figures, sheet_inputs

BLOCK: Final = re.compile(r"(<!-- figures: (\w+) -->\n).*?^(<!-- end -->)$", re.DOTALL | re.MULTILINE)
"""What is filled in: everything between the two marks."""

NAMES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}

ANSWERS: Final = {
    "claim_of_none": "a claim that finds nothing",
    "claim": "a claim of what is due",
    "next_due": "when the next is due",
    "stats": "count what waits",
    "beat": "a node's beat, with all its calls",
    "orphans": "look for dead nodes",
}
"""What is told of each store's answers."""


def filled(page: str, figures: Figures) -> str:
    """The page with its tables made anew. Raises `KeyError` for a table that nobody knows."""
    made: dict[str, Callable[[], str]] = {
        "where": lambda: str(figures["where"]),
        "vcpu": lambda: vcpu(figures["bridge"]),
        "measured": lambda: measured(sheet_inputs(figures)),
        "stores": lambda: stores(figures["stores"]),
        "answers": lambda: answers(figures["stores"]),
        "assumed": assumed,
        "results": lambda: results(sheet.values(sheet_inputs(figures)), sheet.SIZES),
    }
    return BLOCK.sub(lambda found: f"{found[1]}{made[found[2]]()}\n{found[3]}", page)


def vcpu(bridge: Sequence[Mapping[str, Any]]) -> str:
    """What one processor carries."""
    full = next(each.value for each in sheet.ASSUMED if each.name == "full")
    lines = []
    for one in sorted(bridge, key=lambda one: (one["tracks"], one["tls"], one["partials"])):
        kind = "both tracks" if one["tracks"] == 2 else "one track"
        kind += ", TLS to Whisper" if one["tls"] else ""
        kind += ", partials" if one["partials"] else ""
        lines.append(
            (
                kind,
                f"{one['cpu_ms']:.0f} ms",
                str(int(60_000 * full / one["cpu_ms"])),
                " / ".join(map(str, one["within"].values())) + ("" if one["stopped"] else " or more"),
                f"{one['call_kb']:.0f} kB",
            )
        )
    return _table(
        (
            "calls with",
            "processor per call and minute",
            f"calls on one vCPU at {100 * full:.0f} %",
            "most with p99 within 20 / 50 ms",
            "memory per call",
        ),
        lines,
    )


def stores(measured: Mapping[str, Any]) -> str:
    """What each store carries, and what it costs."""
    lines = []
    for name, one in measured.items():
        costs = one["costs"]
        lines.append(
            (
                NAMES[name],
                f"{one['finals_s']:,}{'' if one['stopped'] else ' or more'}",
                _double(one["publish_ms"]),
                _double(one["commit_to_post_ms"]),
                f"{costs['event_ms']:.2f} ms",
                f"{costs['event_log'] / 1000:.0f} kB",
                f"{costs['event_disk'] / 1000:.1f} kB",
                f"{one['cpu_percent']:.0f} %",
            )
        )
    head = ("store", "finals a second", "stored, p50 / p99 ms", "from commit to POST, p50 / p99 ms")
    return _table(
        (*head, "its processor a final", "its log a final", "its disk a final", "processor, all together"),
        lines,
    )


def answers(measured: Mapping[str, Any]) -> str:
    """How quickly each store answers."""
    asked = {
        name: says for one in measured.values() for name, says in ANSWERS.items() if name in one["quiet"]
    }
    lines = [
        (
            NAMES[name],
            f"{one['calls']:,} live calls{beside}",
            *(f"{one[looked][answer]:.1f}" for answer in asked),
        )
        for name, one in measured.items()
        for looked, beside in (("quiet", ""), ("beside_backlog", f", {one['backlog']:,} lanes that wait"))
    ]
    return _table(("store", "with", *asked.values()), lines)


def assumed() -> str:
    """The inputs that are not measured."""
    return _table(
        ("input", "value", "is", "from"),
        [(f"`{each.name}`", sheet.shown(each.value), each.says, each.source) for each in sheet.ASSUMED],
    )


def measured(inputs: Mapping[str, float]) -> str:
    """The inputs that are."""
    return _table(
        ("input", "value", "is"),
        [(f"`{name}`", sheet.shown(inputs[name]), says) for name, says in sheet.MEASURED.items()],
    )


def results(given: Mapping[str, float], sizes: Sequence[float]) -> str:
    """What follows for so many calls."""
    computed = [sheet.results({**given, "calls": calls}) for calls in sizes]
    return _table(
        ("result", "formula", *(f"{calls:,.0f} calls" for calls in sizes), "is"),
        [
            (
                f"`{each.name}`",
                f"`{each.formula}`",
                *(sheet.shown(one[each.name]) for one in computed),
                each.says,
            )
            for each in sheet.RESULTS
        ],
    )


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _double(spread: Mapping[str, float]) -> str:
    return f"{spread['p50']:.1f} / {spread['p99']:.1f}"
