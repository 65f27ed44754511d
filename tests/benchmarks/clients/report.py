"""The results for people: tables on a terminal, or Markdown for the page beside this."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.benchmarks.clients.contestant import BRIDGE, EXTRA, NOTHING, RECEIVING, SENDING

_TITLES: Final = {
    "grouped": ("Sending 1,024 bytes to Whisper, grouped every 4 ms", SENDING),
    "lone": ("Sending 1,024 bytes to Whisper, one send at a time", SENDING),
    "spread": ("Receiving 350 bytes of text from Twilio", RECEIVING),
}
"""Load -> what it is, and who bears it."""

_COLUMNS: Final = ("us for each", "without TLS", "with TLS", "with TLS,\nbridge = 1")

WORTH: Final = 0.2
"""The share of a grouped send with TLS that a faster client must save to become an extra of the bridge's."""

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Name -> plain or tls -> us, least, most."""


def show(results: Mapping[str, Any], *, markdown: bool) -> None:
    """Print a table for each load."""
    console = Console(file=sys.stderr, width=None if sys.stderr.isatty() else 120)
    for load, figures in results["cost_us"].items():
        title, names = _TITLES[load]
        rows = list(_rows(figures, names))
        if markdown:
            sys.stderr.write(_markdown(title, rows))
            continue
        table = Table(title=title)
        for column in _COLUMNS:
            table.add_column(column, justify="left" if column == _COLUMNS[0] else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    sys.stderr.write(_remarks(results) + "\n" + _verdict(results["cost_us"].get("grouped", {})))


def _rows(figures: Figures, names: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    own = figures[BRIDGE]["tls"]["us"]
    for name, costs in figures.items():
        ratio = f"{costs['tls']['us'] / own:.2f}" if name != NOTHING else ""
        yield names[name], _cell(costs["plain"]), _cell(costs["tls"]), ratio


def _cell(cost: Mapping[str, float]) -> str:
    return f"{cost['us']:.1f} ({cost['least']:.1f} to {cost['most']:.1f})"


def _markdown(title: str, rows: list[tuple[str, ...]]) -> str:
    head = [title, *_COLUMNS[1:]]
    lines = [head, ["---", "---:", "---:", "---:"], *rows]
    return (
        "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)
        + "\n\n"
    )


def _remarks(results: Mapping[str, Any]) -> str:
    late = results["late_ms"]
    where = "each contestant had a processor for itself" if results["pinned"] else "all shared one processor"
    void = " THIS RUN IS VOID: the machine was busy." if results["void"] else ""
    return (
        f"Microseconds of processor time, user and system: the median of {results['rounds']} rounds of "
        f"{results['seconds']:g} s, the least and the most. {results['sockets']} sockets each; {where}. "
        f"Turns were {late['p50']:.1f} ms late at p50, {late['p99']:.1f} ms at p99.{void}"
    )


def _verdict(figures: Figures) -> str:
    saved = {
        name: 1 - costs["tls"]["us"] / figures[BRIDGE]["tls"]["us"]
        for name, costs in figures.items()
        if name in EXTRA
    }
    if not saved:
        return ""
    best = max(saved, key=lambda name: saved[name])
    return (
        f"The best that could be an extra: {SENDING[best]}. It saves {saved[best]:.0%} of a grouped send with TLS; "
        f"to be offered, it must save more than {WORTH:.0%}: {'yes' if saved[best] > WORTH else 'no'}.\n"
    )
