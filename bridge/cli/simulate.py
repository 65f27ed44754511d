"""`whisper-bridge simulate`: play calls at a running bridge, as Twilio would."""

import asyncio
import json
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge import loop
from bridge.errors import BridgeError, UsageError

if TYPE_CHECKING:
    from bridge.local.twilio import CallReport, SimulatedCall

LONGEST_SPAN = 20
"""Characters of AT:MS: no call lasts for a thousand years."""

STAGGER_MS = 37.0
"""Between the beginnings of two calls: no multiple of 20, so that their frames do not all fall together."""


class Report(StrEnum):
    """How the outcome is told."""

    text = "text"
    json = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    url: Annotated[str, typer.Argument(help="The bridge's voice URL.", metavar="URL")],
    audio: Annotated[
        list[Path],
        typer.Argument(
            help="WAV files: one mono (the caller), one stereo (caller left, agent right), or two mono.",
            metavar="AUDIO",
        ),
    ],
    *,
    calls: Annotated[int, typer.Option(min=1, max=1000, help="How many calls at a time.")] = 1,
    stagger_ms: Annotated[
        float, typer.Option(min=0, help="Between the beginnings of two calls.")
    ] = STAGGER_MS,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Each frame is late by up to this much.")] = 0,
    speed: Annotated[
        float,
        typer.Option(
            min=0.01,
            max=1000,
            help="2 plays the call in half the time; beyond twilio.max_speed the bridge may refuse it.",
        ),
    ] = 1,
    hole: Annotated[
        list[str] | None, typer.Option(metavar="AT:MS", help="Send nothing for MS from AT; may be repeated.")
    ] = None,
    burst: Annotated[
        list[str] | None, typer.Option(metavar="AT:MS", help="Hold frames from AT for MS; may be repeated.")
    ] = None,
    hangup_ms: Annotated[int | None, typer.Option(min=20, help="The caller hangs up here.")] = None,
    caller: Annotated[str, typer.Option("--from", help="The caller's number.")] = "+15550100",
    called: Annotated[
        str | None, typer.Option("--to", help="The number called; default: the first one configured.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the jitter.")] = 0,
    report: Annotated[Report, typer.Option(help="How the outcome is told.")] = Report.text,
    config: Annotated[
        Path | None, typer.Option(help="Account and public_url come from here.", show_default=False)
    ] = None,
) -> None:
    """Play a call at a running bridge as Twilio would: signed webhook, signed WebSocket, 20 ms pacing.

    Account SID, auth token and public URL are those of the configuration. It tells how late its own media was;
    a run whose 99th percentile is more than 5 ms late is called void: it measured this machine, not the bridge.

    Example: `whisper-bridge simulate http://127.0.0.1:8080/twilio/voice caller.wav agent.wav --calls 10`
    """
    from bridge.config import load  # noqa: PLC0415 - `--help` need not wait for any of these
    from bridge.local import recording  # noqa: PLC0415 - as above
    from bridge.local.twilio import Account, Burst, Hole, Script, SimulatedCall  # noqa: PLC0415 - as above

    settings = load(config)
    auth_token = settings.twilio.own_token
    if not auth_token:
        raise UsageError(
            "simulate needs twilio.auth_token: set it in the configuration, or TWILIO_AUTH_TOKEN."
        )
    if speed > settings.twilio.max_speed:
        sys.stderr.write(
            f"--speed {speed:g} is faster than twilio.max_speed ({settings.twilio.max_speed:g}) allows: "
            "holes are told wrong, and long calls refused.\n"
        )
    account = Account(settings.twilio.account_sid, auth_token)
    voices = recording.load(audio)
    numbers = [number.number for number in settings.numbers]
    simulated = [
        SimulatedCall(
            account,
            url,
            voices,
            Script(
                speed=speed,
                jitter_ms=jitter_ms,
                holes=tuple(Hole(*span) for span in _spans("--hole", hole)),
                bursts=tuple(Burst(*span) for span in _spans("--burst", burst)),
                hangup_ms=hangup_ms,
                seed=seed + n,
            ),
            public_url=settings.server.public_url or None,
            caller=caller,
            called=called or (numbers[0] if numbers else "+15550199"),
        )
        for n in range(calls)
    ]
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        _tell(runner.run(_all(simulated, stagger_ms / 1000)), report)


async def _all(calls: "Sequence[SimulatedCall]", stagger_s: float) -> "list[CallReport]":
    async def one(n: int, call: "SimulatedCall") -> "CallReport":
        await asyncio.sleep(n * stagger_s)
        return await call.run()

    return list(await asyncio.gather(*(one(n, call) for n, call in enumerate(calls))))


def _tell(reports: "Sequence[CallReport]", report: Report) -> None:
    from bridge.local.twilio import Lateness  # noqa: PLC0415 - see simulate

    failed = [one for one in reports if not one.ok]
    late = Lateness.of([value for one in reports for stream in one.streams for value in stream.late_s])
    if report is Report.json:
        told = {
            "ok": len(reports) - len(failed),
            "failed": len(failed),
            "lateness_ms": late.as_json(),
            "void": late.void,
            "calls": [one.as_json() for one in reports],
        }
        typer.echo(json.dumps(told, indent=2))
    else:
        for one in reports:
            if one.ok:
                typer.echo(f"{one.call_sid}  {one.outcome}")
        if len(reports) > 1:
            typer.echo(f"{len(reports) - len(failed)} of {len(reports)} calls went through.")
        if late.max_ms:
            typer.echo(
                f"Media was late by {late.p50_ms:.1f} ms (p50), {late.p99_ms:.1f} ms (p99), "
                f"{late.max_ms:.1f} ms (worst)."
            )
        if late.void:
            typer.echo(
                "This machine was too busy to keep the schedule: delays measured in this run are void."
            )
    if failed:
        count = "" if len(reports) == 1 else f"{len(failed)} of {len(reports)} calls failed, the first one: "
        raise BridgeError(count + failed[0].problem)


def _spans(option: str, written: Sequence[str] | None) -> list[tuple[int, int]]:
    spans = []
    for text in written or ():
        at, colon, length = text.partition(":")
        if not (
            colon and at.isdecimal() and length.isdecimal() and len(text) <= LONGEST_SPAN and int(length)
        ):
            raise UsageError(f"{option} {text!a:.40} cannot be used: expected AT:MS, such as 5000:2580.")
        spans.append((int(at), int(length)))
    return spans
