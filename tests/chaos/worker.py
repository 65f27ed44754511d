"""One process that publishes the numbered events of some calls, and delivers what the outbox holds.

What it has to tell it appends to a file, a JSON list a line, each after it happened: a line that is there is
true, however the process ends.

- `["owns", CALL]`: the call is its own from here on.
- `["fenced", CALL]`: not any more.
- `["acknowledged", CALL, SEQUENCE, ID, SHA256]`: `publish` returned.
- `["published", BEGAN, ENDED]`: when that was, all its attempts together, in seconds since 1970.
- `["log", EVENT]`: a line of the bridge's log.
- `["broken", SENTENCE]`: the outbox did not keep its word.
"""

import asyncio
import hashlib
import ipaddress
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, ParamSpec, TypeVar

import structlog
from pydantic import SecretStr

from bridge.config import Config, JournalConfig, OutboxConfig
from bridge.events import event_id
from bridge.outbox.lease import Fenced
from bridge.outbox.outbox import Outbox, OutboxDown, Outgoing
from bridge.outbox.sqlite import Sqlite
from bridge.outbox.store import outbox_of
from bridge.webhook.delivery import Delivery
from bridge.webhook.lane import LEASE_S
from bridge.webhook.target import Targets
from tests.chaos.death import Death

P = ParamSpec("P")
T = TypeVar("T")

SECRET: Final = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
SAMPLES: Final = 160
"""What each event moves its call's watermark by, so that a watermark tells how many events there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What a worker is to do. A signal SIGUSR1 makes it publish no more, deliver what is left, and end."""

    store: str
    """The outbox's URL."""
    endpoint: str
    calls: Sequence[str]
    """The calls that it owns: nobody else publishes for them meanwhile."""
    seed: int
    report: str = ""
    """The file to append to."""
    log: str = ""
    """The file for a traceback."""
    lease_s: float = LEASE_S
    pause_s: float = 0.1
    """Between two publishes of a call, on average."""
    place: str = ""
    """Where it dies; empty: where its parent kills it."""
    nth: int = 1
    delay_s: float = 0.0


async def work(spec: Spec) -> None:
    """Be the worker, until told to end."""
    report = _Report(spec.report)
    structlog.configure(processors=[report.note])
    config = Config(
        outbox=OutboxConfig(url=SecretStr(spec.store)),
        journal=JournalConfig(path=str(Path(spec.report).parent)),
    )
    outbox = outbox_of(config)
    if isinstance(outbox, Sqlite):
        Death(spec.place, spec.nth, spec.delay_s).lurk(Path(spec.store.removeprefix("sqlite://")))
    await outbox.open()
    owner = str(os.getpid())
    targets = Targets([ipaddress.ip_network("127.0.0.0/8")])
    delivery = Delivery(outbox, lambda _: (SECRET,), targets, owner=owner, lease_s=spec.lease_s)
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, ending.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # the nursery blocked it
    async with delivery:
        async with asyncio.TaskGroup() as publishers:
            for call_sid in spec.calls:
                publishers.create_task(_publish(spec, call_sid, outbox, report, ending))
        await ending.wait()
        while (await _patiently(outbox.stats)).pending:
            await asyncio.sleep(0.05)
    await outbox.close()


class _Report:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, *what: Any) -> None:
        os.write(self._file, json.dumps(what).encode() + b"\n")

    def note(self, _: Any, __: str, line: structlog.typing.EventDict) -> Any:
        """Take a log line down, without its fields; a traceback goes to stderr."""
        self.tell("log", line["event"])
        if line.get("exc_info"):
            traceback.print_exc()
            sys.stderr.flush()
        raise structlog.DropEvent


async def _publish(spec: Spec, call_sid: str, outbox: Outbox, report: _Report, ending: asyncio.Event) -> None:
    """Go on where the call's last owner stopped."""
    random = Random(f"{spec.seed} {call_sid}")
    lease = await _patiently(outbox.own_call, call_sid, str(os.getpid()), b"")
    sequence = lease.next_sequence
    report.tell("owns", call_sid)
    if lease.watermarks.get("inbound", 0) != (sequence - 1) * SAMPLES:
        report.tell(
            "broken", f"{call_sid}: the watermarks {lease.watermarks} are not those of {sequence - 1}."
        )
    while not ending.is_set():
        events = [_event(spec.endpoint, call_sid, sequence + n, random) for n in range(random.randint(1, 3))]
        sequence += len(events)
        began = time.time()
        try:
            await _patiently(outbox.publish, lease, events, {"inbound": events[-1].sequence * SAMPLES})
        except Fenced:
            report.tell("fenced", call_sid)
            return
        except ValueError as error:
            report.tell("broken", str(error))
            return
        for event in events:
            report.tell(
                "acknowledged",
                call_sid,
                event.sequence,
                event.event_id,
                hashlib.sha256(event.body).hexdigest(),
            )
        report.tell("published", began, time.time())
        await asyncio.sleep(random.uniform(0, 2 * spec.pause_s))


async def _patiently(operation: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do it as often as it takes until the outbox is there."""
    while True:
        try:
            return await operation(*args, **kwargs)
        except OutboxDown:
            await asyncio.sleep(0.05)


def _event(endpoint: str, call_sid: str, sequence: int, random: Random) -> Outgoing:
    # Lengths below and above SQLite's page: the latter lie in a chain of pages.
    text = random.randbytes(random.choice((20, 200, 3000))).hex()
    kind = "call.started" if sequence == 1 else "transcript.final"
    body = {"type": kind, "data": {"call_sid": call_sid, "sequence": sequence, "text": text}}
    identity = event_id(call_sid, endpoint, sequence, kind)
    return Outgoing(endpoint, sequence, identity, kind, json.dumps(body).encode())
