"""From what was measured to what an installation needs: named numbers, and formulas that are computed as they are shown.

A formula may use every input, and every result above it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

SIZES: Final = (600, 10_000, 100_000)
"""Calls at the same moment for which the page tells the results."""


@dataclass(frozen=True, slots=True)
class Input:
    """A number that may be another one elsewhere."""

    name: str
    value: float
    says: str
    source: str


@dataclass(frozen=True, slots=True)
class Result:
    """A number that follows from the others."""

    name: str
    formula: str
    says: str


ASSUMED: Final = (
    Input("tracks", 2, "tracks of a call that are transcribed", "`twilio.tracks`"),
    Input("finals", 12, "finals a minute and call", "two people who speak 5 s in turn; yours may differ most here"),
    Input("moving", 1, "share of tracks whose watermark is stored alone, every 15 s", "`bridge/call/legs.py`"),
    Input("minutes", 4, "length of a call", "yours"),
    Input("hours", 10, "hours a day with so many calls", "yours"),
    Input("scrape", 15, "seconds from one look of Prometheus at a process to the next", "yours"),
    Input("full", 0.7, "share of a processor to plan with", "a bridge takes no call beyond 0.85"),
    Input("in_bytes", 480, "bytes of a media message on the wire", "JSON 384, WebSocket 8, TLS 22, TCP/IP and Ethernet 66"),
    Input("out_bytes", 1120, "bytes of a frame to Whisper on the wire", "PCM 1,024, WebSocket 8, TLS 22, the same 66"),
    Input("sockets_each", 40, "sockets that one Whisper replica takes", "Baseten's advice for an H100 MIG; 20 for an H100 and low delay"),
    Input("connections_each", 8, "connections of one process to PostgreSQL", "`bridge/outbox/postgresql/pool.py`"),
    Input("looks", 8, "statements a second of a process at rest", "a claim and a look ahead, every 0.25 s"),
    Input("process_kb", 85_000, "memory of a process without calls", "Python, numpy, scipy"),
    Input("files", 12, "open files of a call", "3 sockets, and its journals"),
)  # fmt: skip
"""What is not measured by a benchmark."""

MEASURED: Final[Mapping[str, str]] = {
    "cpu_ms": "processor time of a call per minute, ms: both tracks, TLS to Whisper",
    "call_kb": "memory of such a call, kB, with the audio that waits in its journals",
    "event_ms": "PostgreSQL's processor time, ms: to store a final with its watermarks and line, lease its lane, and take its ack",
    "purge_ms": "the same to remove its body, and later all of it, ms",
    "event_log": "bytes of PostgreSQL's log for that",
    "event_disk": "bytes in tables and indexes that stay",
    "event_body": "of these its body: 13 words, each with its time",
    "mark_ms": "PostgreSQL's processor time for watermarks alone, ms",
    "mark_log": "bytes of its log for that",
    "look_ms": "its processor time when a process looks and finds nothing, ms",
    "count_ms": "the same to count 100,000 lanes that wait, as `/metrics` does",
}
"""What is: calls by `tests.benchmarks`, the rest by `tests.benchmarks.store`."""

RESULTS: Final = (
    Result("vcpus", "ceil(calls * cpu_ms / 60000 / full)", "processors for bridges, each with one process"),
    Result("memory_gb", "(calls * call_kb + vcpus * process_kb) / 1e6", "GB of memory for them"),
    Result("open_files", "calls * files", "open files, of all processes"),
    Result("sockets", "calls * tracks", "sockets to Whisper"),
    Result("replicas", "ceil(sockets / sockets_each)", "Whisper replicas"),
    Result("in_gbit", "calls * tracks * 50 * in_bytes * 8 / 1e9", "Gbit/s from Twilio"),
    Result("out_gbit", "sockets * 31.25 * out_bytes * 8 / 1e9", "Gbit/s to Whisper"),
    Result("out_tb", "out_gbit / 8 * 3.6 * hours", "TB a day to Whisper"),
    Result("new_calls", "calls / minutes / 60", "calls that begin each second"),
    Result("events", "calls * finals / 60 + 2 * new_calls", "events stored, and POSTs made, each second"),
    Result("marks", "calls * tracks * moving / 15", "watermarks stored alone each second"),
    Result("connections", "vcpus * connections_each", "connections to PostgreSQL"),
    Result("store_vcpus", "(events * (event_ms + purge_ms) + marks * mark_ms + vcpus * looks * look_ms) / 1000 / full", "processors for PostgreSQL"),
    Result("count_vcpus", "vcpus / scrape * count_ms / 1000", "more while 100,000 lanes wait for dead endpoints, to count them"),
    Result("log_mb", "(events * event_log + marks * mark_log) / 1e6", "MB/s of PostgreSQL's log"),
    Result("bodies_gb", "events * 3600 * hours * event_disk / 1e9", "GB of a day's events, with bodies (kept 24 h)"),
    Result("rows_gb", "events * 3600 * hours * 30 * (event_disk - event_body) / 1e9", "GB of a month's rows without them (kept 30 days)"),
    Result("journal_mb", "calls * tracks * 8000 / 1e6", "MB/s written to journals, on all machines together"),
    Result("outage_gb", "calls * tracks * 8000 * 7200 / 1e9", "GB of journals after two hours without Whisper"),
)  # fmt: skip


def values(measured: Mapping[str, float]) -> dict[str, float]:
    """Every input by its name."""
    return {each.name: each.value for each in ASSUMED} | dict(measured)


def results(given: Mapping[str, float]) -> dict[str, float]:
    """Every result by its name. `given` has every input, and `calls`."""
    known: dict[str, float] = {}
    for result in RESULTS:
        known[result.name] = eval(result.formula, {"__builtins__": {}, "ceil": ceil}, {**given, **known})
    return known


def shown(number: float) -> str:
    """As people write it: three digits that count, and thousands apart."""
    if abs(number) >= 100 or number == int(number):
        digits = len(str(int(abs(number))))
        return f"{round(number, min(0, 3 - digits)):,.0f}"
    return f"{number:.3g}"
