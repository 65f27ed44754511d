"""`whisper-bridge whisper`: the local Whisper WebSocket server."""

import asyncio
import enum
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge import loop

if TYPE_CHECKING:
    from bridge.local.whisper.server import WhisperServer


class EngineChoice(enum.StrEnum):
    """The recognisers there are."""

    AUTO = "auto"
    POCKETSPHINX = "pocketsphinx"
    FASTER_WHISPER = "faster-whisper"


class DialectChoice(enum.StrEnum):
    """Which start messages are understood."""

    V1 = "v1"
    SEED = "seed"
    ANY = "any"


def whisper(
    *,
    engine: Annotated[
        EngineChoice, typer.Option(help="auto: pocketsphinx, unless only faster-whisper is installed.")
    ] = EngineChoice.AUTO,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 9090,
    api_key: Annotated[
        str | None, typer.Option(help="Demand this key; without it any key, and none, is accepted.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="For faster-whisper: a folder with a model, or a name to download, e.g. small.en."),
    ] = None,
    dialect: Annotated[
        DialectChoice, typer.Option(help="Start messages understood: Baseten's current, its first, or both.")
    ] = DialectChoice.ANY,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="Checked if given; this command takes no setting from it."),
    ] = None,
) -> None:
    """Serve speech recognition at ws://HOST:PORT/websocket, in Baseten's streaming protocol.

    Example: whisper-bridge whisper --engine pocketsphinx --port 9090
    """
    from bridge import log  # noqa: PLC0415 - only this command's imports when it runs
    from bridge.local.whisper.engine import choose  # noqa: PLC0415 - as above
    from bridge.local.whisper.server import WhisperServer  # noqa: PLC0415 - as above

    log.configure()
    if config is not None:
        from bridge.config import load  # noqa: PLC0415 - as above

        load(config)
    chosen = choose(engine.value, model)
    with asyncio.Runner(loop_factory=loop.factory()) as runner:
        server = WhisperServer(chosen, host=host, port=port, api_key=api_key, dialect=dialect.value)
        runner.run(_serve(server))


async def _serve(server: "WhisperServer") -> None:
    from bridge import log  # noqa: PLC0415 - as above

    logger = log.get(__name__)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with server:
        logger.info(
            "listening", host=server.host, port=server.port, url=server.url, engine=server.engine.name
        )
        await stop.wait()
    logger.info("stopped")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(whisper)
