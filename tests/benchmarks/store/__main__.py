"""What the outbox carries and what it costs: `python -m tests.benchmarks.store [postgresql] [sqlite]`.

Prints one line of JSON on stdout and tables on stderr, and takes less than four minutes.

Each store is filled with calls that are alive, spread over nodes, as many as `--calls` says. Then it is asked one
thing after the other, and finals are published and delivered at rising rates, each with its watermarks and its line,
until the store does not keep up. Then the same beside a backlog: lanes whose endpoint is down. Publishing and
delivery are the bridge's own, in processes of their own. The POSTs are not made, but taken for accepted at once. The
server, the bridges and their load share all processors.
"""

import argparse
import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge import log, loop
from bridge.errors import BridgeError
from tests.benchmarks.store import rows, table
from tests.benchmarks.store.bed import Bed, PostgresBed, SqliteBed
from tests.benchmarks.store.climb import Climb
from tests.doubles import postgres


@dataclass(frozen=True, slots=True)
class Usual:
    """What is measured of a store unless somebody wants something else."""

    bed: Callable[[], Bed]
    calls: int
    """That are alive."""
    share: int
    """Of these, that each node has."""
    processes: int
    """That publish and deliver."""
    backlog: int
    """Lanes that wait."""
    finals_s: Sequence[int]


STORES: Final[Mapping[str, Usual]] = {
    "postgresql": Usual(PostgresBed, 100_000, 10_000, 2, 100_000, (250, 500, 1000, 2000)),
    "sqlite": Usual(SqliteBed, 600, 600, 1, 10_000, (120, 500, 1000, 2000)),
}
"""SQLite is one machine's: 600 calls say 120 finals a second."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.store", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stores", nargs="*", metavar="store", help=f"of {', '.join(STORES)}; default: both")
    parser.add_argument("--finals", type=_number, nargs="+", help="the rates, a second, in rising order")
    parser.add_argument("--seconds", type=_number, default=8, help="how long a rate is kept up")
    parser.add_argument("--calls", type=_number, help="that are alive")
    parser.add_argument("--backlog", type=_number, help="lanes that wait for an endpoint that is down")
    wanted = parser.parse_args(arguments)
    for name in wanted.stores:
        if name not in STORES:
            parser.error(f"there is no store {name}: choose from {', '.join(STORES)}")
    names = [name for name in STORES if name in (wanted.stores or STORES)]
    if "postgresql" in names and not postgres.installed():
        parser.error(postgres.MISSING)
    log.configure(logging.CRITICAL)
    results = {}
    try:
        for name in names:
            with asyncio.Runner(loop_factory=loop.factory()) as runner:
                results[name] = runner.run(measure(STORES[name], wanted))
    except BridgeError as error:
        sys.stderr.write(f"store: {error}\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    table.show(results)
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


async def measure(usual: Usual, wanted: argparse.Namespace) -> dict[str, Any]:
    """The figures of one store. SIGTERM ends it as Ctrl-C does, so that no server outlives it."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    finals_s = sorted(set(wanted.finals or usual.finals_s))
    backlog = wanted.backlog or usual.backlog
    async with (
        usual.bed() as bed,
        Climb(bed, processes=usual.processes, share=usual.share, seconds=wanted.seconds) as climb,
    ):
        calls = await climb.fill(wanted.calls or usual.calls, finals_s)
        quiet = await climb.look()
        levels = []
        for rate in finals_s:
            levels.append(await climb.level(rate))
            if not levels[-1]["kept_up"]:
                break
        top = max((level["finals_s"] for level in levels if level["kept_up"]), default=finals_s[0])
        watermarks = await climb.level(top, silent=True)
        await climb.block(backlog)
        return {
            "processes": usual.processes,
            "body_bytes": len(rows.final(0, rows.BEGUN)),
            "calls": calls,
            "calls_of_a_node": min(calls, usual.share),
            "quiet": quiet,
            "levels": levels,
            "watermarks_only": watermarks,
            "backlog": backlog,
            "beside_backlog": await climb.look(),
            "level_beside_backlog": await climb.level(top),
            "purge": await climb.purge(),
        }


def _number(text: str) -> int:
    if text.isdecimal() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")


if __name__ == "__main__":
    sys.exit(main())
