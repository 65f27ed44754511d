"""What a fault scenario is: `async def run(directory, ...)` of a module in this folder.

`directory` is empty and the scenario's own; the other parameters are its sizes, and their defaults are the
full ones. What it returns says, as a string, the figures in one line. A figure that is missed is an
`AssertionError` with a sentence, a machine that lacks something `Lacking`. It ends every process, task and
socket that it started, also when it fails.
"""

from collections.abc import Callable, Coroutine
from importlib import import_module
from pathlib import Path
from typing import Any, Final

SCENARIOS: Final = (
    "sqlite_kills",
    "torn_log",
    "model",
    "isolation",
    "backlog",
    "outage",
    "latency",
    "postgres_kills",
    "failover",
    "bridge_kills",
    "node_loss",
    "handover",
    "worker_loss",
    "attach",
    "tokens",
    "whisper_faults",
    "last_words",
    "whisper_outage",
    "real_speech",
    "quiet",
)
"""In the order in which `python -m tests.chaos` runs them."""

Run = Callable[[Path], Coroutine[Any, Any, object]]


class Lacking(Exception):  # noqa: N818 - named for the state that it reports
    """This machine has not got what the scenario needs, as the sentence says."""


def load(name: str) -> Run:
    """The scenario of that name."""
    run: Run = import_module(f"tests.chaos.{name}").run
    return run
