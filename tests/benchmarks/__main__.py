"""What a call costs the bridge, how late it makes its audio, and how many calls one processor carries.

`python -m tests.benchmarks [floor] [tutorial] [bridge]`, from the repository's root, prints one line of JSON on
stdout and tables on stderr.

Each system is measured on a staircase of more and more calls, until its delay is beyond 50 ms at p99. The *delay* of a
frame (512 samples at 16 kHz) is the time from writing the media message that completes it to the system's socket
until it is at the Whisper server. Waiting for a frame to fill adds 0 to 40 ms to any system and is not in it. Measured
is the real `whisper-bridge serve`, with signatures, journal, outbox and webhooks. Beside it, in the same run and
with the same load: the `floor`, which does the least that can be done, and the `tutorial`, a bridge as people write it.
So their ratios hold on other machines too. Where there are two processors or more, the system has one for itself, and
the load, the receiver and the Whisper server share the others. A level whose load was late is void, and ends the staircase.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge import loop
from bridge.errors import BridgeError
from bridge.local.receiver import Receiver
from bridge.local.twilio import Account, Script, SimulatedCall
from bridge.local.twilio.account import new_sid
from tests.benchmarks import summary, table
from tests.benchmarks.child import Child
from tests.benchmarks.staircase import Posted, Staircase
from tests.benchmarks.system import NAMES, Setting, System, system
from tests.doubles.tls_proxy import CERTIFICATE

LEVELS: Final = (10, *range(50, 1001, 50))
COMPARED: Final = (100, 300, 600)
"""Numbers of calls at which processor time is compared."""

LIMIT_MS: Final = 50.0
"""A system whose p99 is beyond it gets no more calls."""

WARM_UP: Final = b"\xff" * 1600
"""One call of 0.2 s first: what is imported or allocated once is not the calls' cost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("systems", nargs="*", metavar="system", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument(
        "--calls", type=_between(1, 2000), nargs="+", default=LEVELS, help="the levels, in rising order"
    )
    parser.add_argument("--seconds", type=_between(1, 600), default=4, help="how long a level is measured")
    parser.add_argument("--tracks", type=_between(1, 2), default=1, help="of each call")
    parser.add_argument("--tls", action="store_true", help="between the systems and Whisper")
    parser.add_argument("--top", action="store_true", help="climb on after a level that was void or late")
    wanted = parser.parse_args(arguments)
    for name in wanted.systems:
        if name not in NAMES:
            parser.error(f"there is no system {name}: choose from {', '.join(NAMES)}")
    names = [name for name in NAMES if name in (wanted.systems or NAMES)]
    plan = Plan(
        sorted(set(wanted.calls)), wanted.seconds, wanted.tracks, wanted.tls, None if wanted.top else LIMIT_MS
    )
    measuring = measure(names, plan)
    try:
        with asyncio.Runner(loop_factory=loop.factory()) as runner:
            results = runner.run(_until_terminated(measuring))
    except BridgeError as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    table.show(results)
    sys.stdout.write(json.dumps(results) + "\n")
    return 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same for all systems."""

    levels: Sequence[int]
    seconds: float
    tracks: int
    tls: bool
    limit_ms: float | None


async def measure(names: Sequence[str], plan: Plan) -> dict[str, Any]:
    """The figures of these systems. Raises `BridgeError`."""
    cpus = sorted(os.sched_getaffinity(0))
    alone, others = (set(cpus[:1]), set(cpus[1:])) if len(cpus) > 1 else (set(cpus), set(cpus))
    async with AsyncExitStack() as stack:
        os.sched_setaffinity(0, others)
        stack.callback(os.sched_setaffinity, 0, cpus)
        certificate = (str(CERTIFICATE),) if plan.tls else ()
        sink = await stack.enter_async_context(Child("tests.benchmarks.sink", *certificate, cpus=others))
        climbed = [await _climb(name, sink, alone, plan) for name in names]
    return {
        "processors": len(cpus),
        "pinned": len(cpus) > 1,
        "tls": plan.tls,
        "tracks": plan.tracks,
        "systems": climbed,
        "summary": summary.of(
            climbed, [calls for calls in COMPARED if calls in plan.levels] or plan.levels[-1:]
        ),
    }


async def _climb(name: str, sink: Child, alone: set[int], plan: Plan) -> dict[str, Any]:
    """Start one system, measure it, and end it."""
    secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    async with AsyncExitStack() as stack:
        posted = Posted()
        receiver = await stack.enter_async_context(Receiver(secret, on_event=posted.receive))
        setting = Setting(
            account=Account(new_sid("AC"), secrets.token_hex(16)),
            secret=secret,
            whisper_url=f"{'wss' if plan.tls else 'ws'}://localhost:{sink.port}/websocket",
            webhook_url=receiver.url,
            both_tracks=plan.tracks == 2,
            directory=Path(stack.enter_context(tempfile.TemporaryDirectory())),
        )
        measured = system(name, setting, alone)
        await stack.enter_async_context(measured.child)
        await _warm_up(measured)
        return await Staircase(measured, sink, posted).climb(plan.levels, plan.seconds, plan.limit_ms)


async def _warm_up(measured: System) -> None:
    call = SimulatedCall(
        measured.setting.account,
        measured.voice_url,
        {"inbound": WARM_UP},
        Script(),
        public_url=measured.public_url,
    )
    if problem := (await call.run()).problem:
        raise BridgeError(f"{measured.name} does not take a call: {problem}")


async def _until_terminated(measuring: Any) -> dict[str, Any]:
    """Measure; SIGTERM ends it as Ctrl-C does, so that no child outlives it."""
    task: asyncio.Task[dict[str, Any]] = asyncio.ensure_future(measuring)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _between(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")

    return parse


if __name__ == "__main__":
    sys.exit(main())
