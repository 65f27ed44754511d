"""`whisper-bridge calls`: what is known of calls, asked of the running bridge."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bridge.errors import BridgeError, UsageError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help="What was said on calls. Asks the running bridge: `server.admin_token` must be set.",
    )
    commands.callback()(_calls)
    commands.command()(transcript)
    app.add_typer(commands, name="calls")


def _calls() -> None:
    """Keep `transcript` a command of its own, though it is the only one."""


def transcript(
    call_sid: Annotated[str, typer.Argument(metavar="CALL_SID", help="CA..., as in its events.")],
    *,
    format_: Annotated[str, typer.Option("--format", help="text, json, vtt or srt.")] = "text",
    url: Annotated[
        str | None,
        typer.Option(help="Where the bridge is; default: server.host and server.port.", metavar="URL"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; default $BRIDGE_CONFIG, else config/bridge.toml.")
    ] = None,
) -> None:
    """Print what was said on a live or finished call: both sides, in the order in which they spoke.

    Example: `whisper-bridge calls transcript CA33333333333333333333333333333333 --format vtt`
    """
    from bridge.api import filters  # noqa: PLC0415 - `--help` need not wait for it
    from bridge.api.client import ask  # noqa: PLC0415 - as above
    from bridge.events import TranscriptLine  # noqa: PLC0415 - as above
    from bridge.transcript.subtitles import FORMATS  # noqa: PLC0415 - as above

    filters.call_sid(call_sid)
    if format_ != "json" and format_ not in FORMATS:
        raise UsageError("--format must be text, json, vtt or srt.")
    path = f"/calls/{call_sid}/transcript"
    lines = ask(config, url, lambda bridge: bridge.get(path, (), holds="transcript"))["transcript"]
    if not lines:
        raise BridgeError(
            f"no text of {call_sid} is kept: it is unknown, nothing was said, or outbox.keep_bodies_h is over"
        )
    if format_ == "json":
        typer.echo(json.dumps(lines, indent=1, ensure_ascii=False))
    else:
        typer.echo(FORMATS[format_]([TranscriptLine(**line) for line in lines]), nl=False)
