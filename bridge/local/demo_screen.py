"""What the demo shows: live captions in a terminal, plain lines anywhere else, nothing for programs.

A screen is told about webhooks as they arrive and draws nothing that did not come in one.
"""

from types import TracebackType
from typing import Final, Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bridge.local.demo_result import SPEAKERS, WORST_RATE, Result
from bridge.local.receiver import Received

_NAMES: Final[dict[str, str]] = {track: name for track, name in SPEAKERS.items()}  # noqa: C416 - any text is looked up
_COLORS: Final = {"inbound": "cyan", "outbound": "magenta"}
_WIDEST: Final = 100
_TIME: Final = 6
_SPEAKER: Final = 8


class Screen(Protocol):
    """Where the demo is shown; open while it runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def waiting(self, for_what: str) -> None:
        """Something takes a moment."""

    def begin(self, title: str, engine: str, duration_ms: int) -> None:
        """The call begins."""

    def position(self, ms: int) -> None:
        """So much of the call has been sent."""

    def event(self, received: Received) -> None:
        """A webhook has arrived."""

    def end(self, result: Result) -> None:
        """The figures."""


def screen(console: Console) -> Screen:
    """The screen that suits this console."""
    if console.width > _WIDEST:  # noqa: PLR1730 - setting the width, even to itself, ends following the window
        console.width = _WIDEST
    return (
        LiveScreen(console) if console.is_terminal and not console.is_dumb_terminal else PlainScreen(console)
    )


class SilentScreen:
    """For `--json`: nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def waiting(self, for_what: str) -> None:
        """Nothing."""

    def begin(self, title: str, engine: str, duration_ms: int) -> None:
        """Nothing."""

    def position(self, ms: int) -> None:
        """Nothing."""

    def event(self, received: Received) -> None:
        """Nothing."""

    def end(self, result: Result) -> None:
        """Nothing."""


class PlainScreen(SilentScreen):
    """One line after the other: finals as they come, partials marked with a tilde."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._partials: dict[str, tuple[int, str]] = {}
        self._final_ms: dict[str, int] = {}

    def waiting(self, for_what: str) -> None:
        """One line."""
        self._print(Text(f"({for_what})", "dim"))

    def begin(self, title: str, engine: str, duration_ms: int) -> None:
        """What is running, and on what."""
        self._console.print()
        for line in _header(title, engine, duration_ms):
            self._console.print(line)
        self._legend()
        self._console.print()

    def event(self, received: Received) -> None:
        """A line for each final; a partial when it says something new."""
        data = received.data
        if received.type == "transcript.final":
            track = str(data.get("track"))
            self._partials.pop(track, None)
            self._final_ms[track] = int(data.get("end_ms", 0))
            self._print(_caption(track, int(data.get("start_ms", 0)), str(data.get("text", ""))))
        elif received.type == "transcript.partial":
            self._partial(data)
        elif received.type == "transcript.gap":
            self._print(_note(int(data.get("start_ms", 0)), f"audio is missing: {data.get('reason')}"))
        elif received.type == "call.started":
            self._print(_note(0, "call.started"))
        elif received.type == "call.ended":
            self._partials.clear()
            self._print(_note(int(data.get("duration_ms", 0)), f"call.ended ({data.get('reason')})"))

    def end(self, result: Result) -> None:
        """The table."""
        self._console.print()
        self._console.print(_table(result))

    def _legend(self) -> None:
        self._console.print(Text("~ marks partials, which the final then replaces", "dim"))

    def _partial(self, data: dict[str, object]) -> None:
        """Partials overtake each other and finals: they are best effort."""
        track, text, start_ms = str(data.get("track")), str(data.get("text", "")), data.get("start_ms")
        if not isinstance(start_ms, int) or start_ms < self._final_ms.get(track, 0):
            return
        if text and self._partials.get(track) != (start_ms, text):
            self._partials[track] = start_ms, text
            self._show_partial(track)

    def _show_partial(self, track: str) -> None:
        start_ms, text = self._partials[track]
        self._print(_caption(track, start_ms, f"~ {text}", "dim italic"))

    def _print(self, line: RenderableType) -> None:
        self._console.print(line)


class LiveScreen(PlainScreen):
    """Finals stay and scroll; below them the partials being replaced, and how far the call is."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False)
        self._duration_ms = 0
        self._position_ms = 0
        self._status = ""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(Text(""), refresh=True)
        self._live.stop()

    def waiting(self, for_what: str) -> None:
        """Below the captions, until something else happens."""
        self._status = for_what
        self._draw()

    def begin(self, title: str, engine: str, duration_ms: int) -> None:
        """The header stays at the top."""
        self._status, self._duration_ms = "", duration_ms
        super().begin(title, engine, duration_ms)
        self._draw()

    def position(self, ms: int) -> None:
        """Moves the bar; called often enough to be the clock of the drawing, too."""
        self._position_ms = ms
        self._draw()

    def end(self, result: Result) -> None:
        """The bar goes, the table stays."""
        self._status, self._duration_ms = "", 0
        self._partials.clear()
        self._draw()
        super().end(result)

    def _legend(self) -> None:
        return

    def _show_partial(self, track: str) -> None:  # noqa: ARG002 - all of them are drawn together
        self._draw()

    def _print(self, line: RenderableType) -> None:
        # First what is below, then the line: printing draws both, and a partial never shows beside its final.
        self._live.update(self._below())
        self._console.print(line)

    def _draw(self) -> None:
        self._live.update(self._below(), refresh=True)

    def _below(self) -> RenderableType:
        lines: list[RenderableType] = []
        if self._duration_ms:
            room = self._console.width - _TIME - _SPEAKER - 4
            for track in SPEAKERS:
                start_ms, text = self._partials.get(track, (None, ""))
                # The end is what is new; a line that stays one line does not make the screen jump.
                shown = text if len(text) <= room else "… " + text[2 - room :]
                lines.append(_caption(track, start_ms, shown, "dim italic"))
            lines.append(self._bar())
        if self._status:
            lines.append(Text(f"  {self._status} ...", "dim"))
        return Group(*lines)

    def _bar(self) -> RenderableType:
        row = Table.grid(padding=(0, 2))
        row.add_row(
            ProgressBar(total=self._duration_ms, completed=self._position_ms, width=self._console.width - 22),
            Text(f"{_clock(self._position_ms)} / {_clock(self._duration_ms)}"),
        )
        return Group(Text(""), row)


def _header(title: str, engine: str, duration_ms: int) -> list[Text]:
    honest = ""
    if engine.startswith("pocketsphinx"):
        honest = ": needs no download, but is not Whisper"
    return [
        Text.assemble(("whisper-bridge demo", "bold"), f"  {title}, {_clock(duration_ms)}"),
        Text("Twilio simulator > bridge > local Whisper server > webhook receiver", "dim"),
        Text.assemble(("recogniser: ", "dim"), (engine, "bold"), (honest, "dim")),
    ]


def _caption(track: str, start_ms: int | None, text: str, style: str = "") -> RenderableType:
    row = Table.grid(padding=(0, 1), expand=False)
    row.add_column(width=_TIME, justify="right")
    row.add_column(width=_SPEAKER)
    row.add_column(overflow="fold")
    row.add_row(
        Text("" if start_ms is None else _clock(start_ms), "dim"),
        Text(_NAMES.get(track, track), _COLORS.get(track, "") + (" dim" if style else " bold")),
        Text(text, style),
    )
    return row


def _note(at_ms: int, text: str) -> RenderableType:
    return _caption("", at_ms, text, "dim")


def _table(result: Result) -> Table:
    deliveries = result.deliveries
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("what was delivered", style="dim")
    table.add_column("figure")
    table.add_column("")

    def row(what: str, figure: str, good: bool | None) -> None:  # noqa: FBT001 - three columns of one row
        mark = Text("") if good is None else Text("ok", "green") if good else Text("FAILED", "bold red")
        table.add_row(what, figure, mark)

    stored = deliveries.events - deliveries.partials
    row(
        "events",
        f"{stored} stored (finals: {result.finals}), partials: {deliveries.partials}",
        result.ended,
    )
    row("in order, none missing", _count(len(deliveries.problems), "problem"), not deliveries.problems)
    good = deliveries.requests - deliveries.unverified
    row("signatures valid", f"{good} of {deliveries.requests}", not deliveries.unverified)
    for track, score in result.scores.items():
        figure = f"{score.rate:.2f}  ({score.errors} of {score.words} words wrong)"
        row(f"word error rate, {SPEAKERS[track]}", figure, score.rate <= WORST_RATE)
    p50, p95 = result.delay_s(0.5), result.delay_s(0.95)
    if p50 is not None and p95 is not None:
        row("end of speech to webhook", f"p50 {p50:.2f} s, p95 {p95:.2f} s", None)
    return table


def _count(number: int, noun: str) -> str:
    return f"no {noun}" if not number else f"{number} {noun}{'' if number == 1 else 's'}"


def _clock(ms: int) -> str:
    minutes, seconds = divmod(ms // 1000, 60)
    return f"{minutes}:{seconds:02}"
