"""What a call costs the bridge, how late it makes its audio, how many calls one processor carries, and how it sounds.

`python -m tests.benchmarks [floor] [tutorial] [bridge]`, from the repository's root, prints one line of JSON on
stdout and tables on stderr. It takes less than ten minutes.

Each system is measured on a staircase of more and more calls, until its delay is beyond 50 ms at p99: once as it is,
and once more with TLS between it and Whisper. The *delay* of a frame (512 samples at 16 kHz) is the time from writing
the media message that completes it to the system's socket until it is at the Whisper server. Waiting for a frame to
fill adds 0 to 40 ms to any system; it is in the *raw* delay, from each media message until all of it is there. Measured
is the real `whisper-bridge serve`, with signatures, journal, outbox and webhooks. Beside it, in the same run and
with the same load: the `floor`, which does the least that can be done, and the `tutorial`, a bridge as people write it.
So their ratios hold on other machines too. Where there are two processors or more, the system has one for itself, and
the load, the receiver and the Whisper server share the others. A level whose load was late is void: it is measured once
more, and ends the staircase if it is void again. `--seconds 600 --calls 300` tells each minute's p99.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bridge import loop
from bridge.errors import BridgeError
from bridge.local.load.sink import Sink
from bridge.local.receiver import Receiver
from bridge.local.twilio import Account, SimulatedCall
from bridge.local.twilio.account import new_sid
from bridge.serve import raise_open_files
from tests.benchmarks import sound, summary, table
from tests.benchmarks.child import Child
from tests.benchmarks.staircase import Posted, Staircase
from tests.benchmarks.steps import Steps
from tests.benchmarks.system import NAMES, Setting, System, system
from tests.doubles.tls_proxy import CERTIFICATE

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
        "--calls", type=_between(1, 2000), nargs="+", help="the levels; default: where it tells"
    )
    parser.add_argument("--seconds", type=_between(1, 600), default=4, help="how long a level is measured")
    parser.add_argument("--tracks", type=_between(1, 2), default=1, help="of each call")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--tls", action="store_true", help="only with TLS between the systems and Whisper")
    either.add_argument("--plain", action="store_true", help="only without")
    parser.add_argument("--top", action="store_true", help="climb on after a level that was void or late")
    wanted = parser.parse_args(arguments)
    for name in wanted.systems:
        if name not in NAMES:
            parser.error(f"there is no system {name}: choose from {', '.join(NAMES)}")
    names = [name for name in NAMES if name in (wanted.systems or NAMES)]
    plan = Plan(
        steps=Steps(sorted(set(wanted.calls)) if wanted.calls else None),
        seconds=wanted.seconds,
        tracks=wanted.tracks,
        parts=[tls for tls in (False, True) if not (wanted.plain if tls else wanted.tls)],
        limit_ms=None if wanted.top else LIMIT_MS,
    )
    raise_open_files()  # for the processes to be started, too
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

    steps: Steps
    seconds: float
    tracks: int
    parts: Sequence[bool]
    """Whether with TLS, one after the other."""
    limit_ms: float | None


async def measure(names: Sequence[str], plan: Plan) -> dict[str, Any]:
    """The figures of these systems. Raises `BridgeError`."""
    began = time.monotonic()
    cpus = sorted(os.sched_getaffinity(0))
    alone, others = (set(cpus[:1]), set(cpus[1:])) if len(cpus) > 1 else (set(cpus), set(cpus))
    os.sched_setaffinity(0, others)
    try:
        sounds = {name: await _listen(name, alone) for name in names if name != "floor"}
        parts = [await _part(names, tls, alone, others, plan) for tls in plan.parts]
    finally:
        os.sched_setaffinity(0, cpus)
    return {
        "processors": len(cpus),
        "pinned": len(cpus) > 1,
        "tracks": plan.tracks,
        "took_s": round(time.monotonic() - began, 1),
        "parts": parts,
        "sound": sounds,
    }


async def _part(
    names: Sequence[str], tls: bool, alone: set[int], others: set[int], plan: Plan
) -> dict[str, Any]:
    """All systems on the staircase, with or without TLS."""
    certificate = (str(CERTIFICATE),) if tls else ()
    async with Child("tests.benchmarks.sink", *certificate, cpus=others) as sink:
        url = f"{'wss' if tls else 'ws'}://localhost:{sink.port}/websocket"
        climbed = []
        for name in names:
            posted = Posted()
            async with _started(name, url, alone, posted, tracks=plan.tracks) as measured:
                await _call(measured, WARM_UP)
                staircase = Staircase(measured, sink, posted)
                climbed.append(await staircase.climb(plan.steps, plan.seconds, plan.limit_ms))
    levels = plan.steps.levels
    compared = [calls for calls in COMPARED if calls in levels] or levels[-1:]
    return {"tls": tls, "systems": climbed, "summary": summary.of(climbed, compared)}


async def _listen(name: str, alone: set[int]) -> dict[str, float] | None:
    """How a system sounds; None where not all of it came."""
    heard = bytearray()
    async with Sink(on_audio=heard.extend) as sink:
        url = f"ws://localhost:{sink.port}/websocket"
        async with _started(name, url, alone, Posted(), tracks=1) as measured:
            await _call(measured, sound.played())
    return sound.figures(bytes(heard))


@asynccontextmanager
async def _started(
    name: str, whisper_url: str, cpus: set[int], posted: Posted, *, tracks: int
) -> AsyncIterator[System]:
    """A system that is ready for calls, and ends."""
    secret = "whsec_" + b64encode(secrets.token_bytes(24)).decode()
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(Receiver(secret, on_event=posted.receive))
        posted.forgets = receiver.received
        setting = Setting(
            account=Account(new_sid("AC"), secrets.token_hex(16)),
            secret=secret,
            whisper_url=whisper_url,
            webhook_url=receiver.url,
            both_tracks=tracks == 2,
            directory=Path(stack.enter_context(tempfile.TemporaryDirectory())),
        )
        started = system(name, setting, cpus)
        await stack.enter_async_context(started.child)
        yield started


async def _call(measured: System, audio: bytes) -> None:
    call = SimulatedCall(
        measured.setting.account,
        measured.voice_url,
        {"inbound": audio},
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
