"""What the bridge itself adds to a call, and what a call costs it.

`python -m tests.benchmarks.added_delay [--calls 1 50] [--seconds 20] [--json]`, from the repository's root.

The *added delay* of a chunk (512 samples at 16 kHz, one binary frame) is the time from writing the media
message that completes it to the bridge's socket until the frame is at the Whisper server. Waiting for a chunk
to fill adds 0 to 40 ms to any system and is not in it. Measured is the real `whisper-bridge serve` with
signatures, journal and outbox, and in the same run the `floor`, which does the least that can be done; so the
ratio of their costs holds on other machines too. Where there are two processors or more, the bridge or the
floor has one for itself, and the load and the Whisper server share the others.
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
from collections.abc import Awaitable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.table import Table

from bridge.errors import BridgeError
from bridge.local.receiver import Receiver
from bridge.local.twilio.account import Account, new_sid
from tests.benchmarks import course
from tests.benchmarks.child import Child
from tests.benchmarks.course import Course, Noted, System

PUBLIC_URL: Final = "https://bridge.example.com"
"""The bridge serves nobody without one; requests are signed for it and sent to 127.0.0.1."""

WARM_UP_S: Final = 0.2
"""One call of this length first: what is imported or allocated once is not the calls' cost."""

END_S: Final = 30.0
"""How long `call.ended` may take to reach the receiver."""

Results = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.added_delay", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--calls", type=_between(1, 1000), nargs="+", default=[1, 50], help="calls at once")
    parser.add_argument("--seconds", type=_between(1, 600), default=20, help="how long each is measured")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a table")
    wanted = parser.parse_args(arguments)
    try:
        results = asyncio.run(_until_terminated(wanted.calls, wanted.seconds))
    except BridgeError as error:
        sys.stderr.write(f"added_delay: {error}\n")
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    if wanted.json:
        sys.stdout.write(json.dumps(results) + "\n")
    else:
        show(results)
    return 0


async def measure(levels: Sequence[int], seconds: int) -> Results:
    """The figures of both systems with so many calls at once. Raises `BridgeError`."""
    cpus = sorted(os.sched_getaffinity(0))
    alone, others = (set(cpus[:1]), set(cpus[1:])) if len(cpus) > 1 else (set(cpus), set(cpus))
    os.sched_setaffinity(0, others)
    account = Account(new_sid("AC"), secrets.token_hex(16))
    secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    async with AsyncExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, cpus)
        sink = await stack.enter_async_context(Child("tests.benchmarks.sink", cpus=others))
        receiver = await stack.enter_async_context(Receiver(secret))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        whisper_url = f"ws://127.0.0.1:{sink.port}/websocket"
        config = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "bridge.toml"
        config.write_text(_config(config.parent, account, whisper_url, receiver.url, secret))
        bridge = Child("bridge", "serve", "--config", str(config), cpus=alone)
        floor = Child("tests.benchmarks.floor", whisper_url, cpus=alone)
        await _all(stack.enter_async_context(bridge), stack.enter_async_context(floor))
        systems = [
            System("bridge", bridge, sink, account, PUBLIC_URL),
            System("floor", floor, sink, account, f"http://127.0.0.1:{floor.port}"),
        ]
        await _all(*(course.run(system, session, 1, WARM_UP_S) for system in systems))
        courses = []
        for calls in levels:
            for system in systems:
                courses.append(await course.run(system, session, calls, seconds))
                if system.child is bridge:
                    await _ended(receiver, courses[-1], bridge)
        noted = _noted(await sink.last_words())
    runs = [one.figures(noted) for one in courses]
    for bridge_run, floor_run in zip(runs[::2], runs[1::2], strict=True):
        bridge_run["cpu_ratio"] = round(
            bridge_run["cpu_ms_per_call_minute"] / floor_run["cpu_ms_per_call_minute"], 3
        )
    return {"processors": len(cpus), "pinned": len(cpus) > 1, "runs": runs}


def show(results: Results) -> None:
    """Print the table."""
    table = Table(title="Added delay: a chunk's last media message written, until the chunk is at Whisper")
    for name in (
        *("system", "calls", "delay ms\np50 / p99 / max", "CPU ms per\ncall-minute", "floor\n= 1"),
        *("kB per call\n(not journal)", "load late ms\np50 / p99 / max", "driver\nCPU", "load\naverage"),
    ):
        table.add_column(name, justify="left" if name == "system" else "right", no_wrap=True)
    for run in results["runs"]:
        table.add_row(
            run["system"],
            str(run["calls"]),
            _triple(run["delay_ms"]),
            f"{run['cpu_ms_per_call_minute']:.1f}",
            f"{run.get('cpu_ratio', 1):.2f}",
            f"{run['rss_kb_per_call']:.0f} ({run['anonymous_kb_per_call']:.0f})",
            _triple(run["load_late_ms"]) + (" LATE" if run["load_is_late"] else ""),
            f"{run['driver_cpu_percent']:.0f} %",
            f"{run['load_average']:.1f}",
        )
    where = "one processor for the bridge alone" if results["pinned"] else "everything on one processor"
    table.caption = f"{results['processors']} processors, {where}; a call has both tracks"
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(table)
    if any(run["load_is_late"] for run in results["runs"]):
        console.print(
            f"LATE: the load was more than {course.LATE_MS:.0f} ms late at p99; this measured a busy machine."
        )


async def _until_terminated(levels: Sequence[int], seconds: int) -> Results:
    """Measure; SIGTERM ends it as Ctrl-C does, so that no child outlives it."""
    task = asyncio.ensure_future(measure(levels, seconds))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


async def _all(*work: Awaitable[object]) -> None:
    """Do several things at once; what fails is raised when none of them goes on."""
    for outcome in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


async def _ended(receiver: Receiver, finished: Course, bridge: Child) -> None:
    """Wait until the bridge has told all that it has to tell of these calls."""
    try:
        async with asyncio.timeout(END_S):
            for call in finished.calls:
                ended = await receiver.wait_for_type("call.ended", END_S, call_sid=call.call_sid)
                if not ended.data["complete"]:
                    raise BridgeError("the bridge says that a call is not complete")
    except TimeoutError:
        raise BridgeError(
            f"call.ended did not come within {END_S:.0f} s; the bridge's log ends with {bridge.last_line}"
        ) from None


def _noted(line: bytes) -> Noted:
    try:
        return {int(number): sockets for number, sockets in json.loads(line).items()}
    except ValueError:
        raise BridgeError(
            "the Whisper server of this benchmark ended before it had told what it saw"
        ) from None


def _config(directory: Path, account: Account, whisper_url: str, webhook_url: str, secret: str) -> str:
    return f"""
        [server]
        port = 0
        public_url = "{PUBLIC_URL}"
        [twilio]
        account_sid = "{account.sid}"
        auth_token = "{account.auth_token}"
        verify_signatures = true
        [whisper]
        url = "{whisper_url}"
        [webhook]
        url = "{webhook_url}"
        secret = "{secret}"
        allow_private_networks = ["127.0.0.0/8"]
        [outbox]
        url = "sqlite://{directory}/outbox"
    """


def _between(least: int, most: int) -> Any:
    def parse(text: str) -> int:
        if text.isdecimal() and least <= int(text) <= most:
            return int(text)
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")

    return parse


def _triple(spread: dict[str, float]) -> str:
    return " / ".join(f"{spread[name]:.2f}" for name in ("p50", "p99", "max"))


if __name__ == "__main__":
    sys.exit(main())
