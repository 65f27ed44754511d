"""`whisper-bridge serve`: the bridge."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from bridge import log


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; default $BRIDGE_CONFIG, else config/bridge.toml.")
    ] = None,
) -> None:
    """Run the bridge: take Twilio's calls, transcribe them, and post the transcripts.

    Example: `whisper-bridge serve --config config/bridge.toml`
    """
    import uvloop  # noqa: PLC0415 - the other commands do without it

    from bridge.config import load  # noqa: PLC0415 - keeps --help fast
    from bridge.serve import serve as run  # noqa: PLC0415 - keeps --help fast

    log.configure()
    settings = load(config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(settings))
