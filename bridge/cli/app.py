"""The typer application.

Every other module of this package is a command, with a function `register(app)`. Errors that a person can
mend become one sentence on stderr and an exit code.
"""

import importlib
import pkgutil
import sys
from typing import Annotated

import typer

import bridge.cli
from bridge import __version__
from bridge.errors import BridgeError

app = typer.Typer(
    name="whisper-bridge",
    help="Live telephone calls in, signed transcript webhooks out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback(invoke_without_command=True)
def _top(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False
) -> None:
    if version:
        typer.echo(f"whisper-bridge {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; never show a traceback for an error that a person can mend."""
    for module in pkgutil.iter_modules(bridge.cli.__path__):
        if module.name != "app":
            importlib.import_module(f"bridge.cli.{module.name}").register(app)
    try:
        app()
    except BridgeError as error:
        typer.echo(f"whisper-bridge: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
