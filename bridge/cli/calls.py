"""`whisper-bridge calls`: live and finished calls, and what is done with them, asked of the running bridge."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from bridge.errors import BridgeError, UsageError

if TYPE_CHECKING:
    from bridge.api.client import Client

_T = TypeVar("_T")

_Sid = Annotated[str, typer.Argument(metavar="CALL_SID", help="CA..., as in its events and at Twilio.")]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
_Config = Annotated[
    Path | None, typer.Option(help="Configuration file; default $BRIDGE_CONFIG, else config/bridge.toml.")
]
_Url = Annotated[
    str | None, typer.Option(help="Where the bridge is; default: server.host and server.port.", metavar="URL")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help="Calls: which there are, what was said on them, and streams by hand. Asks the running bridge: "
        "`server.admin_token` must be set.",
    )
    commands.command("list")(list_)
    commands.command()(show)
    commands.command()(attach)
    commands.command()(detach)
    commands.command()(dial)
    commands.command()(transcript)
    app.add_typer(commands, name="calls")


def list_(*, as_json: _Json = False, url: _Url = None, config: _Config = None) -> None:
    """List the live calls of one bridge.

    Example: `whisper-bridge calls list --url http://127.0.0.1:8080`
    """
    calls = _ask(config, url, lambda bridge: bridge.get("/calls", (), holds="calls"))["calls"]
    if as_json:
        typer.echo(json.dumps(calls, indent=1))
    elif calls:
        _print(calls)
    else:
        typer.echo("No live call.")


def show(call_sid: _Sid, *, as_json: _Json = False, url: _Url = None, config: _Config = None) -> None:
    """Show one call, live or finished: its stream, how far transcription is, and how often audio is missing.

    Example: `whisper-bridge calls show CA33333333333333333333333333333333`
    """
    path = _path(call_sid)
    call = _ask(config, url, lambda bridge: bridge.get(path, (), holds="call"))["call"]
    if as_json:
        typer.echo(json.dumps(call, indent=1))
        return
    for name, value in call.items():
        typer.echo(f"{name:<11} {_text(value)}".rstrip())


def attach(call_sid: _Sid, *, as_json: _Json = False, url: _Url = None, config: _Config = None) -> None:
    """Transcribe a call in progress, from now on. Nobody on the call hears of it.

    A call that is transcribed already stays as it is.

    Example: `whisper-bridge calls attach CA33333333333333333333333333333333`
    """
    path = f"{_path(call_sid)}/attach"
    told = _ask(config, url, lambda bridge: bridge.post(path, {}, holds="stream_sid"))
    if as_json:
        typer.echo(json.dumps(told, indent=1))
    elif told["already"]:
        typer.echo(f"Attached already: stream {told['stream_sid']}.")
    elif told["arrived"]:
        typer.echo(f"Attached: stream {told['stream_sid']}.")
    else:
        typer.echo(
            f"Twilio has started stream {told['stream_sid']}, but it has not come to this bridge: it came to "
            "another one, or Twilio cannot reach server.public_url (its debugger says 31901 or 31920 then)."
        )


def detach(call_sid: _Sid, *, as_json: _Json = False, url: _Url = None, config: _Config = None) -> None:
    """Transcribe a call no more. The call goes on; its `call.ended` has the reason `detached`.

    It cannot be attached again: `call.ended` is a call's last word.

    Example: `whisper-bridge calls detach CA33333333333333333333333333333333`
    """
    path = f"{_path(call_sid)}/detach"
    told = _ask(config, url, lambda bridge: bridge.post(path, {}, holds="detached"))
    if as_json:
        typer.echo(json.dumps(told, indent=1))
    else:
        typer.echo("Detached." if told["detached"] else "It was not transcribed any more.")


def dial(
    from_: Annotated[
        str, typer.Argument(metavar="FROM", help="A number of your Twilio account: +15551234567.")
    ],
    to: Annotated[str, typer.Argument(metavar="TO", help="Who is called: +1..., sip:... or client:...")],
    *,
    then: Annotated[
        str, typer.Option(help="Where the call goes on; default: the call flow of FROM.", metavar="URL")
    ] = "",
    as_json: _Json = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """Place a call that is transcribed from the first second after somebody picks up.

    Example: `whisper-bridge calls dial +15551234567 +15557654321 --then https://voice.example.com/hello`
    """
    body = {"from": from_, "to": to, "then": then}
    told = _ask(config, url, lambda bridge: bridge.post("/calls", body, holds="call_sid"))
    typer.echo(json.dumps(told, indent=1) if as_json else f"Dialled: {told['call_sid']}.")


def transcript(
    call_sid: _Sid,
    *,
    format_: Annotated[str, typer.Option("--format", help="text, json, vtt or srt.")] = "text",
    url: _Url = None,
    config: _Config = None,
) -> None:
    """Print what was said on a live or finished call: both sides, in the order in which they spoke.

    Example: `whisper-bridge calls transcript CA33333333333333333333333333333333 --format vtt`
    """
    from bridge.events import TranscriptLine  # noqa: PLC0415 - `--help` need not wait for it
    from bridge.transcript.subtitles import FORMATS  # noqa: PLC0415 - as above

    path = f"{_path(call_sid)}/transcript"
    if format_ != "json" and format_ not in FORMATS:
        raise UsageError("--format must be text, json, vtt or srt.")
    lines = _ask(config, url, lambda bridge: bridge.get(path, (), holds="transcript"))["transcript"]
    if not lines:
        raise BridgeError(
            f"no text of {call_sid} is kept: it is unknown, nothing was said, or outbox.keep_bodies_h is over"
        )
    if format_ == "json":
        typer.echo(json.dumps(lines, indent=1, ensure_ascii=False))
    else:
        typer.echo(FORMATS[format_]([TranscriptLine(**line) for line in lines]), nl=False)


def _path(call_sid: str) -> str:
    """Of a call at the API. Raises `UsageError` for what cannot be an id."""
    from bridge.api import filters  # noqa: PLC0415 - `--help` need not wait for it

    return f"/calls/{filters.call_sid(call_sid)}"


def _ask(config: Path | None, url: str | None, question: "Callable[[Client], Awaitable[_T]]") -> _T:
    from bridge.api.client import ask  # noqa: PLC0415 - `--help` need not wait for it

    return ask(config, url, question)


def _print(calls: Sequence[Mapping[str, Any]]) -> None:
    """A table; a terminal that is too narrow for it breaks its lines, as an id that is cut is of no use."""
    now = time.time()
    rows: list[tuple[str, ...]] = [("call", "state", "from", "to", "direction", "tracks", "age", "behind")]
    for call in calls:
        since = call["since"] and datetime.fromisoformat(call["since"]).timestamp()
        age = "" if since is None else f"{max(now - since, 0) // 60:.0f}:{max(now - since, 0) % 60:02.0f}"
        said = (_text(call[name]) for name in ("call_sid", "state", "from", "to", "direction", "tracks"))
        rows.append((*said, age, f"{call['behind_s']:.1f} s"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    """A value of the answer for a terminal: who calls by SIP chooses what his name is made of."""
    text = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
    return text if text.isprintable() else ascii(text)
