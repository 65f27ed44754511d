"""`whisper-bridge deliveries`: what was delivered, what waits and what was given up, asked of the running bridge."""

import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import typer

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.api.client import Client
    from bridge.api.filters import Given

MOST_IDS = 100
"""Event ids that `list` takes: they travel in the URL, which may have 8,190 bytes."""

WIDEST = 1000
"""Columns of a table that nothing was cut from."""

COLORS = {"pending": "yellow", "done": "green", "dead": "red", "erased": "dim"}

_T = TypeVar("_T")

_Config = Annotated[
    Path | None, typer.Option(help="Configuration file; default $BRIDGE_CONFIG, else config/bridge.toml.")
]
_Url = Annotated[
    str | None, typer.Option(help="Where the bridge is; default: server.host and server.port.", metavar="URL")
]
_Call = Annotated[str | None, typer.Option(help="Of this call.", metavar="CALL_SID")]
_Endpoint = Annotated[
    str | None, typer.Option(help="To this webhook: its URL, or its tag as in the log.", metavar="ENDPOINT")
]
_States = Annotated[
    list[str] | None,
    typer.Option("--state", help="pending, done, dead or erased; may be repeated.", metavar="STATE"),
]
_Ids = Annotated[
    list[str] | None, typer.Option("--id", help="This event; may be repeated.", metavar="EVENT_ID")
]
_Since = Annotated[
    str | None,
    typer.Option(help="Stored then or later: 30m, 2h, 7d ago, or 2026-08-22T10:00:00Z.", metavar="WHEN"),
]
_Until = Annotated[str | None, typer.Option(help="Stored before then.", metavar="WHEN")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help="What was delivered, what waits and what was given up. Asks the running bridge: "
        "`server.admin_token` must be set.",
    )
    commands.command("list")(list_)
    commands.command()(replay)
    commands.command()(erase)
    app.add_typer(commands, name="deliveries")


def list_(
    *,
    call: _Call = None,
    endpoint: _Endpoint = None,
    state: _States = None,
    event_id: _Ids = None,
    since: _Since = None,
    until: _Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print an array, and nothing else.")] = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """List deliveries, the newest first.

    Example: `whisper-bridge deliveries list --state dead --since 7d`
    """
    given = _given(call_sid=call, endpoint=endpoint, state=state, event_id=event_id, since=since, until=until)
    if len(event_id or ()) > MOST_IDS:
        raise UsageError(f"list takes --id {MOST_IDS} times at most.")
    records, more = _ask(config, url, lambda bridge: _listed(bridge, given, limit))
    if as_json:
        typer.echo(json.dumps(records, indent=1))
    elif records:
        _print(records)
    else:
        typer.echo("No delivery matches.")
    if more:
        typer.echo(f"There are more than {limit}: --limit shows them.", err=True)


def replay(
    *,
    call: _Call = None,
    endpoint: _Endpoint = None,
    state: _States = None,
    event_id: _Ids = None,
    since: _Since = None,
    until: _Until = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Without a filter: all that was given up or waits.")
    ] = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """Deliver events again: same id, same bytes, and a header `bridge-replay: 1`.

    What was given up is sent again, and what waits is tried at once. What was delivered is sent once more only
    with `--state done`, as long as its body is kept. An endpoint that a 410 had paused is paused no more.

    Example: `whisper-bridge deliveries replay --state dead --endpoint https://agent.example.com/transcripts`
    """
    given = _given(call_sid=call, endpoint=endpoint, state=state, event_id=event_id, since=since, until=until)
    if not given and not everything:
        raise UsageError(
            "replay needs a filter, such as --state dead or --call CA...; --all means everything."
        )
    body = {**given, "all": everything}
    answer = _ask(config, url, lambda bridge: bridge.post("/deliveries/replay", body, holds="replayed"))
    if answer["replayed"]:
        typer.echo(f"Replayed: {answer['replayed']}.")
    else:
        typer.echo("Nothing to replay matches. What was delivered is replayed with --state done.")


def erase(
    call_sid: Annotated[str, typer.Argument(metavar="CALL_SID", help="CA..., as in its events.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """Remove what is kept of a call: the text of its events, and audio that was not yet understood.

    Nothing more of it is delivered. If the call is live it is transcribed no more, and the conversation goes on.

    Example: `whisper-bridge deliveries erase CA33333333333333333333333333333333 --yes`
    """
    from bridge.api import filters  # noqa: PLC0415 - `--help` need not wait for it

    filters.call_sid(call_sid)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("erase asks before it removes anything: use a terminal, or --yes.")
        typer.confirm(f"Remove all that is kept of {call_sid}? It cannot be undone.", abort=True)
    body = {"call_sid": call_sid}
    answer = _ask(config, url, lambda bridge: bridge.post("/deliveries/erase", body, holds="erased"))
    audio = " and its audio" if answer["audio"] else ""
    if answer["erased"] or audio:
        typer.echo(f"Erased: {answer['erased']} events{audio}.")
    else:
        typer.echo(f"Nothing was kept of {call_sid}.")


def _given(**named: str | list[str] | None) -> "Given":
    """The filters that were named, checked before anybody is asked."""
    from bridge.api import filters  # noqa: PLC0415 - `--help` need not wait for it

    given = {
        name: [value] if isinstance(value, str) else value
        for name, value in named.items()
        if value is not None and value != []
    }
    filters.selection(given, time.time())
    return given


def _ask(config: Path | None, url: str | None, question: "Callable[[Client], Awaitable[_T]]") -> _T:
    from bridge.api.client import ask  # noqa: PLC0415 - `--help` need not wait for it

    return ask(config, url, question)


async def _listed(bridge: "Client", given: "Given", limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Up to `limit` records, page by page, and whether there are more."""
    from bridge.api.deliveries import LARGEST_PAGE  # noqa: PLC0415 - `--help` need not wait for it

    query = [(name, value) for name, values in given.items() for value in values]
    records: list[dict[str, Any]] = []
    before: int | None = None
    while True:
        size = min(limit - len(records), LARGEST_PAGE)
        place = () if before is None else (("before", str(before)),)
        page = await bridge.get("/deliveries", [*query, ("limit", str(size)), *place], holds="deliveries")
        records += page["deliveries"]
        before = page["before"]
        if before is None or len(records) >= limit:
            return records, before is not None


class _Row(NamedTuple):
    """A record in words."""

    id: str
    call: str
    type: str
    seq: str
    state: str
    tries: str
    last: str
    age: str
    next: str


def _row(record: dict[str, Any], now: float) -> _Row:
    remarks = [record["state"], "replay" if record["replay"] else "", "" if record["kept"] else "no body"]
    due_at = record["due_at"]
    return _Row(
        id=record["event_id"],
        call=record["call_sid"],
        type=record["type"],
        seq=str(record["sequence"]),
        state=", ".join(filter(None, remarks)),
        tries=str(record["tries"]),
        last=str(record["last_error"] or record["last_status"] or ""),
        age=_span(now - _seconds(record["created_at"])),
        next="" if due_at is None else f"in {_span(_seconds(due_at) - now)}",
    )


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _span(seconds: float) -> str:
    """A duration in its largest unit; 0s for what the clocks do not agree on."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _print(records: Sequence[dict[str, Any]]) -> None:
    """A table; where it has no room, two lines for each record, as an id that is cut is of no use."""
    from rich.console import Console  # noqa: PLC0415 - `--help` need not wait for it
    from rich.measure import Measurement  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    now = time.time()
    rows = [_row(record, now) for record in records]
    styles = [COLORS.get(record["state"], "") for record in records]
    table = Table(*_Row._fields, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row, style in zip(rows, styles, strict=True):
        table.add_row(*(Text(text, style if text == row.state else "", no_wrap=True) for text in row))
    width = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    if not console.is_terminal:  # a pipe has no width
        console.width = width
    if width <= console.width:
        console.print(table)
        return
    for row, style in zip(rows, styles, strict=True):
        console.print(Text(f"{row.id} {row.type} #{row.seq} ") + Text(row.state, style), soft_wrap=True)
        known = [row.call, f"{row.age} old", f"tries: {row.tries}", row.last, row.next and f"next {row.next}"]
        console.print(Text("  " + ", ".join(filter(None, known))), soft_wrap=True)
