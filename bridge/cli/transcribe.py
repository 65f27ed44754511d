"""`whisper-bridge transcribe`: a file or the microphone to the configured Whisper endpoint."""

import asyncio
import logging
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.config import WhisperConfig
    from bridge.local.dictation import Frames, Source
    from bridge.whisper.protocol import Transcription


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(transcribe)


def transcribe(
    file: Annotated[Path | None, typer.Argument(help="A WAV file of any rate; stereo is mixed.")] = None,
    *,
    microphone: Annotated[bool, typer.Option("--microphone", help="Listen to the microphone.")] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Stop listening after so long; else Ctrl-C stops it.")
    ] = None,
    speed: Annotated[float, typer.Option(min=1, max=2, help="Play the file faster than it was spoken.")] = 1,
    config: Annotated[
        Path | None, typer.Option(help="Configuration file; default $BRIDGE_CONFIG, else config/bridge.toml.")
    ] = None,
) -> None:
    """Transcribe a WAV file, or the microphone, with the configured Whisper endpoint.

    Prints `[partial]` while somebody speaks and `[final]` when a sentence stands.

    Example: whisper-bridge transcribe interview.wav --speed 2
    """
    if (file is None) != microphone:
        raise UsageError("Name one of them: a WAV file, or --microphone")
    if seconds is not None and not microphone:
        raise UsageError("--seconds is for --microphone; a file ends by itself")

    from bridge import log  # noqa: PLC0415 - only this command's imports when it runs
    from bridge.audio import wav  # noqa: PLC0415 - as above
    from bridge.config import load  # noqa: PLC0415 - as above
    from bridge.local.dictation import recording  # noqa: PLC0415 - as above

    log.configure(logging.ERROR)
    whisper = load(config).whisper.model_copy(update={"partials": True})
    if file is not None:
        samples = wav.read_mono(file, wav.WHISPER_HZ)
        asyncio.run(_transcribe(recording(samples, speed), whisper))
    else:
        asyncio.run(_listen(seconds, whisper))


async def _listen(seconds: float | None, whisper: "WhisperConfig") -> None:
    """Transcribe the microphone. The first Ctrl-C only ends the listening, so that no last word is lost."""
    from bridge.local.microphone import Microphone  # noqa: PLC0415 - needs an extra

    microphone = Microphone(seconds)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        microphone.stop()

    async def listen(frames: "Frames") -> None:
        loop.add_signal_handler(signal.SIGINT, stop)
        typer.echo("Listening; Ctrl-C ends it.", err=True)
        await microphone(frames)

    try:
        await _transcribe(listen, whisper)
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    if microphone.lost_s:
        typer.echo(f"{microphone.lost_s:.1f} s were lost: the endpoint was too slow.", err=True)


async def _transcribe(source: "Source", whisper: "WhisperConfig") -> None:
    from bridge.local.dictation import Dictation  # noqa: PLC0415 - only this command's imports when it runs
    from bridge.whisper.endpoint import Endpoints  # noqa: PLC0415 - as above

    screen = Screen()
    endpoint, *_ = Endpoints().of(whisper)
    try:
        await Dictation(endpoint, whisper, screen.show).run(source)
    finally:
        screen.end()
    if not screen.finals:
        typer.echo("No speech was recognised.", err=True)


class Screen:
    """Prints finals below each other; on a terminal, a partial is replaced by what comes after it."""

    def __init__(self) -> None:
        self.finals = 0
        self._terminal = sys.stdout.isatty()
        self._partial = ""

    def show(self, said: "Transcription") -> None:
        """Print one transcription."""
        if not said.text:
            return
        self.finals += said.is_final
        line = f"[{said.kind}] {said.text}"
        if said.is_final or not self._terminal:
            typer.echo(self._erased() + line)
        elif line != self._partial:
            width = shutil.get_terminal_size().columns - 1
            shown = line if len(line) <= width else f"[{said.kind}] ...{line[-(width - 14) :]}"
            typer.echo(self._erased() + shown, nl=False)
            self._partial = line

    def end(self) -> None:
        """Leave no partial behind."""
        typer.echo(self._erased(), nl=False)

    def _erased(self) -> str:
        erased = "\r\x1b[2K" if self._partial else ""
        self._partial = ""
        return erased
