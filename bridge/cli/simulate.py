"""`whisper-bridge simulate`: play calls at a running bridge, as Twilio would."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bridge import loop
from bridge.errors import BridgeError, UsageError

if TYPE_CHECKING:
    from bridge.local.load.play import Played

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
    pid: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Tell what this process of the bridge uses; repeat it for each worker."),
    ] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local",
            help="Be the configuration's Whisper server and webhook endpoint too, and check what comes there.",
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Account and public_url come from here.", show_default=False)
    ] = None,
) -> None:
    """Play calls at a running bridge as Twilio would: signed webhook, signed WebSocket, 20 ms pacing.

    Account SID, auth token and public URL are those of the configuration. It tells how late its own media was;
    a run whose 99th percentile is more than 5 ms late is called void: it measured this machine, not the bridge.

    With --local it measures how late the audio is at Whisper, and counts webhooks that are missing, doubled or out of
    order. whisper.url must be ws:// and webhook.url http://, both on this machine; nobody else may listen there, and
    nothing is understood: every 5 s a final is told. The first 0.2 s of each track then say which it is.

    Example: `whisper-bridge simulate http://127.0.0.1:8080/twilio/voice caller.wav agent.wav --calls 10`

    Example: `whisper-bridge simulate http://127.0.0.1:8080/twilio/voice call.wav --calls 300 --stagger-ms 20
    --local --pid 4711 --report json`
    """
    from bridge.config import load  # noqa: PLC0415 - `--help` need not wait for any of these
    from bridge.local import recording  # noqa: PLC0415 - as above
    from bridge.local.load.ends import Ends, tagged  # noqa: PLC0415 - as above
    from bridge.local.load.play import play  # noqa: PLC0415 - as above
    from bridge.local.twilio import Account, Burst, Hole, Script, SimulatedCall  # noqa: PLC0415 - as above
    from bridge.serve import raise_open_files  # noqa: PLC0415 - as above

    raise_open_files()
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
            tagged(voices, n) if local else voices,
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
    ends = Ends(settings, [call.report for call in simulated]) if local else None
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        _tell(runner.run(play(simulated, stagger_ms / 1000, pids=pid or (), ends=ends)), report)


def _tell(played: "Played", report: Report) -> None:
    if report is Report.json:
        typer.echo(json.dumps(played.as_json(), indent=2))
    else:
        for line in _lines(played):
            typer.echo(line)
    if failed := played.failed:
        count = (
            ""
            if len(played.reports) == 1
            else f"{len(failed)} of {len(played.reports)} calls failed, the first one: "
        )
        raise BridgeError(count + failed[0].problem)
    if played.webhook_problem:
        raise BridgeError(played.webhook_problem)


def _lines(played: "Played") -> "Iterator[str]":
    """The outcome for people."""
    for one in played.reports:
        if one.ok:
            yield f"{one.call_sid}  {one.outcome}"
    if len(played.reports) > 1:
        yield f"{len(played.reports) - len(played.failed)} of {len(played.reports)} calls went through."
    late = played.lateness
    if late.max_ms:
        yield (
            f"Media was late by {late.p50_ms:.1f} ms (p50), {late.p99_ms:.1f} ms (p99), "
            f"{late.max_ms:.1f} ms (worst)."
        )
    if late.void:
        yield "This machine was too busy to keep the schedule: delays measured in this run are void."
    if used := played.bridge:
        yield (
            f"The bridge used {used['cpu_ms_per_call_minute']} ms of processor for a minute of a call, "
            f"and {used['rss_kb_per_call']} kB of memory for each of {used['calls']} calls."
        )
    if played.audio and (spread := played.audio["delay_ms"]):
        yield f"Audio was at Whisper {_spread(spread)} after the message that completed a frame."
    if came := played.webhooks:
        yield f"{came['events']} webhooks came, {came['doubled']} of them more than once; {came['finals']} finals were told."
        if came["final_to_post_ms"]:
            yield f"A final was at the webhook after {_spread(came['final_to_post_ms'])}."


def _spread(spread: Any) -> str:
    return f"{spread['p50']:.1f} ms (p50), {spread['p99']:.1f} ms (p99)"


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
