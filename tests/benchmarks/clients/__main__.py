"""What a WebSocket costs: websockets, aiohttp, picows and the bridge's own way, to send and to receive, in one run.

`python -m tests.benchmarks.clients [way ...]`, from the repository's root, prints one line of JSON on stdout and tables
on stderr. It takes under three minutes.

Measured is the processor time, user and system, of a process that does nothing else and has a processor for itself
where there are two or more. The other end of its sockets is in this process, and checks that everything has
arrived, unmasked and unharmed. All run on uvloop; each is measured with and without TLS.

*Sending* is the side to Whisper: 200 sockets, 1,024 bytes every 32 ms on each. Grouped: every 4 ms an eighth of the
sockets, which is how the bridge's tick sends. Lone: one send every millisecond, each in a turn of the event loop of its own.
What a turn costs without anything to send is measured too, as "the schedule alone", and taken off all others.
*Receiving* is the side to Twilio: 200 sockets, 50 text messages a second on each, of about 350 bytes, spread over time.

The contestants take turns, and do so several times. Told is the median, and in brackets the least and the most.
A run whose turns came late is void.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

from bridge import loop
from bridge.errors import BridgeError
from bridge.local.twilio import Lateness
from tests.benchmarks.child import Child
from tests.benchmarks.clients import report
from tests.benchmarks.clients.contest import Contestant, Receiver, Sender
from tests.benchmarks.clients.contestant import BRIDGE, EXTRA, NOTHING, RECEIVING, SENDING
from tests.benchmarks.clients.twilio import Twilio
from tests.benchmarks.clients.whisper import Whisper
from tests.doubles.tls_proxy import CERTIFICATE

WAYS: Final = tuple(dict.fromkeys((*SENDING, *RECEIVING)))

LUCKLESS: Final = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "16777216"}
"""For each read over TLS, uvloop takes 256 KiB from the allocator, unless the protocol brings a buffer. glibc takes that
from the kernel and gives it back, for two page faults and 14 us, or finds it in the heap, just as things lie there. With these
settings it always finds it."""

Costs = dict[tuple[Contestant, str], list[float]]
"""Who did what -> what it cost in each round, in us."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    ways: Collection[str]
    sockets: int
    rounds: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.clients", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "ways", nargs="*", metavar="way", help=f"beside the bridge's; of {', '.join(WAYS)}; default: all"
    )
    parser.add_argument("--sockets", type=int, default=200, help="of each contestant; default: 200")
    parser.add_argument("--rounds", type=int, default=5, help="how often each has its turn; default: 5")
    parser.add_argument("--seconds", type=float, default=0.4, help="how long a turn is; default: 0.4")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables as Markdown, for CLIENTS.md"
    )
    wanted = parser.parse_args(arguments)
    for way in wanted.ways:
        if way not in WAYS:
            parser.error(f"there is no way {way}: choose from {', '.join(WAYS)}")
    ways = frozenset({NOTHING, BRIDGE, *(wanted.ways or WAYS)})
    plan = Plan(ways, wanted.sockets, wanted.rounds, wanted.seconds)
    if min(plan.sockets, plan.rounds) < 1 or not 0 < plan.seconds <= 5:
        parser.error("there must be a socket and a round at least, and turns of 5 seconds at most")
    if missing := sorted(
        {package for way, package in EXTRA.items() if way in ways and not find_spec(package)}
    ):
        sys.stderr.write(f"clients: not installed, and left out: {', '.join(missing)}\n")
    try:
        with asyncio.Runner(loop_factory=loop.factory()) as runner:
            results = runner.run(measure(plan))
    except BridgeError as error:
        sys.stderr.write(f"clients: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    report.show(results, markdown=wanted.markdown)
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


async def measure(plan: Plan) -> dict[str, Any]:
    """The figures of all contestants. Raises `BridgeError`."""
    cpus = sorted(os.sched_getaffinity(0))
    alone, others = (set(cpus[:1]), set(cpus[1:])) if len(cpus) > 1 else (set(cpus), set(cpus))
    async with AsyncExitStack() as stack:
        os.sched_setaffinity(0, others)
        stack.callback(os.sched_setaffinity, 0, cpus)
        contestants: list[Contestant] = [
            one
            for tls in (False, True)
            for one in (
                *await _senders(stack, plan, alone, tls=tls),
                *await _receivers(stack, plan, alone, tls=tls),
            )
        ]
        costs: Costs = {}
        for _ in range(plan.rounds):
            for one in contestants:
                for load in one.loads:
                    costs.setdefault((one, load), []).append(await one.cost_us(load, plan.seconds))
    late = Lateness.of([late for one in contestants for late in one.late_s])
    return {
        "processors": len(cpus),
        "pinned": len(cpus) > 1,
        "sockets": plan.sockets,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "late_ms": late.as_json(),
        "void": late.void,
        "cost_us": _figures(costs),
    }


def _figures(costs: Costs) -> dict[str, Any]:
    """Load -> name -> plain or tls -> its figures. What the schedule costs is taken off those who send."""
    schedule = {
        (one.tls, load): statistics.median(us) for (one, load), us in costs.items() if one.name == NOTHING
    }
    figures: dict[str, Any] = {}
    for (one, load), us in costs.items():
        idle = 0.0 if one.name == NOTHING else schedule.get((one.tls, load), 0.0)
        figures.setdefault(load, {}).setdefault(one.name, {})["tls" if one.tls else "plain"] = {
            "us": round(statistics.median(us) - idle, 2),
            "least": round(min(us) - idle, 2),
            "most": round(max(us) - idle, 2),
        }
    return figures


async def _senders(stack: AsyncExitStack, plan: Plan, cpus: set[int], *, tls: bool) -> list[Sender]:
    whisper = await stack.enter_async_context(Whisper(tls=tls))
    senders = []
    for name in _here(SENDING, plan):
        child = Child(
            *("tests.benchmarks.clients.sending", name, whisper.url, str(plan.sockets)),
            cpus=cpus,
            environment={"SSL_CERT_FILE": str(CERTIFICATE)} | LUCKLESS,
        )
        senders.append(Sender(name, tls, await stack.enter_async_context(child), whisper=whisper))
    return senders


async def _receivers(stack: AsyncExitStack, plan: Plan, cpus: set[int], *, tls: bool) -> list[Receiver]:
    receivers = []
    for name in _here(RECEIVING, plan):
        certificate = (str(CERTIFICATE),) if tls else ()
        child = await stack.enter_async_context(
            Child("tests.benchmarks.clients.receiving", name, *certificate, cpus=cpus, environment=LUCKLESS)
        )
        url = f"{'wss' if tls else 'ws'}://localhost:{child.port}/"
        twilio = await stack.enter_async_context(Twilio(url, plan.sockets))
        receivers.append(Receiver(name, tls, child, twilio=twilio))
    return receivers


def _here(names: Iterable[str], plan: Plan) -> list[str]:
    """Those of them that are wanted and installed."""
    return [name for name in names if name in plan.ways and (name not in EXTRA or find_spec(EXTRA[name]))]


if __name__ == "__main__":
    sys.exit(main())
