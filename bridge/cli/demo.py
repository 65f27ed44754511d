"""`whisper-bridge demo`: the main job on this machine, without any account."""

import asyncio
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import BridgeError

if TYPE_CHECKING:
    from bridge.local.demo import Play


class Engine(StrEnum):
    """What recognises the speech."""

    auto = "auto"
    pocketsphinx = "pocketsphinx"
    faster_whisper = "faster-whisper"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    audio: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Your own WAV: mono (the caller), stereo (caller left, agent right), or two mono files.",
            metavar="AUDIO",
            show_default=False,
        ),
    ] = None,
    *,
    engine: Annotated[
        Engine, typer.Option(help="The recogniser; auto takes what is installed.")
    ] = Engine.auto,
    model: Annotated[
        str | None,
        typer.Option(help="For faster-whisper: a folder, or a name to download.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print an array of {id, verified, event}, one a webhook, and nothing else."
        ),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="Checked if given; the demo makes its own configuration.", show_default=False),
    ] = None,
) -> None:
    """Play a telephone call through the bridge on this machine and watch its transcripts arrive.

    A Twilio simulator, the bridge, a local Whisper server and a webhook receiver; no account, no key.

    Example: `whisper-bridge demo my.wav`
    """
    from rich.console import Console  # noqa: PLC0415 - `--help` need not wait for any of these

    from bridge.local.demo import run  # noqa: PLC0415 - as above
    from bridge.local.demo_screen import SilentScreen, screen  # noqa: PLC0415 - as above

    if config is not None:
        from bridge.config import load  # noqa: PLC0415 - as above

        load(config)
    play = _play(audio or [])
    shown = SilentScreen() if as_json else screen(Console(highlight=False))
    outcome, received = asyncio.run(run(play, engine.value, model, shown))
    if as_json:
        told = [{"id": one.webhook_id, "verified": one.verified, "event": one.event} for one in received]
        typer.echo(json.dumps(told, ensure_ascii=False, indent=1))
    if outcome.problems:
        raise BridgeError(f"the demo did not succeed: {' '.join(outcome.problems)}")


def _play(audio: "list[Path]") -> "Play":
    from bridge.local import recording, speech  # noqa: PLC0415 - as above
    from bridge.local.demo import Play  # noqa: PLC0415 - as above

    if audio:
        return Play(recording.load(audio), {}, ", ".join(path.name for path in audio))
    return Play(
        audio=recording.load([speech.CALLER, speech.AGENT]),
        said={"inbound": speech.text("caller"), "outbound": speech.text("agent")},
        title="the call that comes with it",
    )
