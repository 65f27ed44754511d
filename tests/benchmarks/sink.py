"""The Whisper server at the end of the benchmark, as a process of its own.

`python -m tests.benchmarks.sink [CERTIFICATE]` says on stderr where it listens; with a certificate it speaks TLS.
For each line on stdin it writes one to stdout, `Told` as JSON, of what happened since the line before. It runs
until stdin is closed.
"""

import asyncio
import json
import ssl
import sys
from array import array
from base64 import b64decode, b64encode
from typing import TypedDict

import uvloop

from bridge.local.load.sink import Noted, Sink


class Told(TypedDict):
    """What was noted, the times of `came` as base64 of their doubles: there are thousands in a second."""

    open: int
    came: dict[str, str]
    finals: dict[str, float]


def told(noted: Noted) -> Told:
    """As it goes over the pipe."""
    came = {str(number): b64encode(array("d", times)).decode() for number, times in noted.came.items()}
    return Told(open=noted.open, came=came, finals=noted.finals)


def noted(told: Told) -> Noted:
    """As it was."""
    came = {int(number): array("d", b64decode(times)) for number, times in told["came"].items()}
    return Noted(told["open"], came, told["finals"])


async def main(certificate: str | None = None) -> None:
    """Listen until stdin ends."""
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    async with Sink(tls=tls) as sink:
        sys.stderr.write(json.dumps({"event": "listening", "port": sink.port}) + "\n")
        while await asyncio.to_thread(sys.stdin.readline):
            sys.stdout.write(json.dumps(told(sink.take())) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(*sys.argv[1:]))
