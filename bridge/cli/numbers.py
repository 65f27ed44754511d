"""`whisper-bridge numbers`: which telephone numbers come through the bridge, and leading them here and back."""

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from bridge.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.numbers.numbers import Listed, Outcome
    from bridge.numbers.remote import Desk

AT_ONCE: Final = 5
"""Numbers under way at a time."""

WIDEST: Final = 1000
"""Columns of a table that nothing was cut from."""

ATTACHED: Final = {
    "yes": ("attached", "green"),
    "no": ("", ""),
    "changed": ("attached, but changed since: {changed}", "red"),
    "half": ("attaching or detaching was interrupted: do it again", "yellow"),
    "by hand": ("leads here, but not by attach", "yellow"),
}

_T = TypeVar("_T")

_Config = Annotated[
    Path | None, typer.Option(help="Configuration file; default $BRIDGE_CONFIG, else config/bridge.toml.")
]
_Url = Annotated[
    str | None,
    typer.Option(help="Have the bridge there do it, instead of doing it here.", metavar="URL"),
]
_Numbers = Annotated[
    list[str] | None, typer.Argument(metavar="NUMBER", help="With + and country code: +15551234567.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    commands = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        help="Twilio telephone numbers: lead their calls through the bridge, and back again. If a bridge is "
        "running on this machine and holds the outbox, it is asked: `server.admin_token` must be set.",
    )
    commands.command("list")(list_)
    commands.command()(attach)
    commands.command()(detach)
    app.add_typer(commands, name="numbers")


def list_(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print an array, and nothing else.")] = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """List the account's numbers: what handles their calls, and whether they are attached.

    Example: `whisper-bridge numbers list`
    """
    listed = _at_desk(config, url, lambda desk: desk.every())
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in listed], indent=1))
    elif listed:
        _print(listed)
    else:
        typer.echo("The account has no numbers.")


def attach(
    numbers: _Numbers = None,
    *,
    everything: Annotated[
        bool,
        typer.Option(
            "--all", help="Every number of the account that something handles; with --then the others too."
        ),
    ] = False,
    then: Annotated[
        str,
        typer.Option(
            help="Where calls go on when their stream has started; default: where they go now.", metavar="URL"
        ),
    ] = "",
    dry_run: _DryRun = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """Lead the calls of numbers through the bridge; the caller hears what they heard before.

    What each number did is remembered, and `detach` puts it back. It is also made the number's fallback: if the
    bridge does not answer, Twilio goes there by itself. Again is harmless.

    Example: `whisper-bridge numbers attach +15551234567`
    """

    async def work(desk: "Desk") -> "list[Outcome]":
        # Who calls a number that nothing handles is turned away: that is not for us to change unasked.
        out = {"gone"} if then else {"gone", "nothing"}
        chosen = numbers or [each.number for each in await desk.every() if each.handled_by not in out]
        return await _each(chosen, lambda number: desk.attach(number, then, dry_run=dry_run))

    _choice(numbers, everything=everything)
    _tell(_at_desk(config, url, work))


def detach(
    numbers: _Numbers = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every number that is attached.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also if somebody changed the number since.")
    ] = False,
    dry_run: _DryRun = False,
    url: _Url = None,
    config: _Config = None,
) -> None:
    """Put back what numbers did before they were attached.

    Example: `whisper-bridge numbers detach +15551234567`
    """

    async def work(desk: "Desk") -> "list[Outcome]":
        mine = {"yes", "half", "changed"}
        chosen = numbers or [each.number for each in await desk.every() if each.attached in mine]
        return await _each(chosen, lambda number: desk.detach(number, force=force, dry_run=dry_run))

    _choice(numbers, everything=everything)
    _tell(_at_desk(config, url, work))


def _choice(numbers: Sequence[str] | None, *, everything: bool) -> None:
    if bool(numbers) == everything:
        raise UsageError("Name the numbers, such as +15551234567, or say --all.")


def _at_desk(config: Path | None, url: str | None, work: "Callable[[Desk], Awaitable[_T]]") -> _T:
    """Have it done here, or by the bridge that holds the outbox."""
    from bridge import log  # noqa: PLC0415 - `--help` need not wait for it
    from bridge.api.client import ask  # noqa: PLC0415 - as above
    from bridge.config import load  # noqa: PLC0415 - as above
    from bridge.numbers.remote import RemoteNumbers  # noqa: PLC0415 - as above
    from bridge.outbox.outbox import OutboxHeld  # noqa: PLC0415 - as above

    log.configure(
        logging.ERROR
    )  # the outbox's remarks are for whoever runs the bridge, and none are for stdout
    if url is None:
        settings = load(config)
        try:
            return asyncio.run(_here(settings, work))
        except OutboxHeld as held:
            if not settings.server.admin_token.get_secret_value():
                raise ConfigError(
                    f"{held} Or set server.admin_token, for the bridge and for this command, which then asks it."
                ) from held
    return ask(config, url, lambda client: work(RemoteNumbers(client)))


async def _here(config: "Config", work: "Callable[[Desk], Awaitable[_T]]") -> _T:
    from bridge.numbers.numbers import Numbers  # noqa: PLC0415 - `--help` need not wait for it
    from bridge.outbox.store import outbox_of  # noqa: PLC0415 - as above
    from bridge.twilio.rest import TwilioRest  # noqa: PLC0415 - as above

    outbox = outbox_of(config)
    await outbox.open()
    try:
        async with TwilioRest(config.twilio) as rest:
            if not rest.possible:
                raise ConfigError(
                    "Twilio cannot be asked about the account's numbers: set twilio.account_sid and "
                    "twilio.auth_token."
                )
            return await work(Numbers(config, outbox, rest))
    finally:
        await outbox.close()


async def _each(numbers: Sequence[str], work: "Callable[[str], Awaitable[Outcome]]") -> "list[Outcome]":
    """Do it for each number, some at a time; a bar shows how far it is, on a terminal."""
    from rich.console import Console  # noqa: PLC0415 - `--help` need not wait for it
    from rich.progress import Progress  # noqa: PLC0415 - as above

    console = Console(stderr=True)
    room = asyncio.Semaphore(AT_ONCE)
    chosen = list(dict.fromkeys(numbers))
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("numbers", total=len(chosen))

        async def one(number: str) -> "Outcome":
            async with room:
                outcome = await work(number)
            progress.advance(bar)
            return outcome

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(number)) for number in chosen]
        except ExceptionGroup as failed:  # what was asked wrongly is wrong for all of them
            raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _tell(outcomes: "Sequence[Outcome]") -> None:
    if not outcomes:
        typer.echo("There is no such number.")
    for outcome in outcomes:
        if outcome.error:
            typer.echo(f"whisper-bridge: {outcome.number}: {outcome.error}", err=True)
            continue
        typer.echo(f"{outcome.number}: {outcome.did}")
        for change in outcome.changes or ():
            typer.echo(f"  {change}")
    if any(outcome.error for outcome in outcomes):
        sys.exit(1)


def _print(listed: "Sequence[Listed]") -> None:
    """A table, of which nothing is cut."""
    from rich.console import Console  # noqa: PLC0415 - `--help` need not wait for it
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(
        "number", "handled by", "", "then", "attached", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for each in listed:
        words, style = ATTACHED[each.attached]
        cells = (each.number, each.handled_by, each.where, each.then)
        state = Text(words.format(changed=", ".join(each.changed)), style)
        table.add_row(*(Text(cell, overflow="fold") for cell in cells), state)
    console = Console(highlight=False)
    if not console.is_terminal:  # a pipe has no width
        console.width = WIDEST
    console.print(table)
