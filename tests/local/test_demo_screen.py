import io
import json
import re
from typing import Any

import pytest
from rich.console import Console

from bridge.local.deliveries import Deliveries
from bridge.local.demo_result import Result, result
from bridge.local.demo_screen import LiveScreen, PlainScreen, Screen, SilentScreen, screen
from bridge.local.receiver import Received
from bridge.local.score import Score
from bridge.local.twilio import CallReport

ENGINE = "pocketsphinx (en-us)"
LONG = "this sentence goes on and on " * 6


def got(type_: str, **data: Any) -> Received:
    event = {"type": type_, "data": data}
    return Received("evt", True, {}, json.dumps(event).encode(), event, 0.0)


def partial(text: str, start_ms: int = 1000, track: str = "inbound") -> Received:
    return got("transcript.partial", track=track, text=text, start_ms=start_ms, end_ms=start_ms + 500)


def final(text: str, start_ms: int = 1000, track: str = "inbound") -> Received:
    return got("transcript.final", track=track, text=text, start_ms=start_ms, end_ms=start_ms + 2000)


def good() -> Result:
    scores = {"inbound": Score(0, 0, 0, 44), "outbound": Score(10, 5, 5, 40)}
    return Result(Deliveries(requests=59, events=59, partials=43), 14, True, scores, [0.4, 0.5], [])  # type: ignore[arg-type]


def play(shown: Screen) -> None:
    with shown:
        shown.waiting("the bridge is starting")
        shown.begin("my.wav", ENGINE, 27_000)
        shown.event(got("call.started", tracks=["inbound", "outbound"]))
        shown.position(1500)
        shown.event(partial("my"))
        shown.event(partial("my name is"))
        shown.event(partial("my name is"))
        shown.event(final("my name is david"))
        shown.event(partial("my name is stale", 1000))
        shown.event(partial(LONG, 5000, "outbound"))
        shown.event(got("transcript.gap", track="inbound", start_ms=6000, end_ms=7000, reason="late"))
        shown.position(27_000)
        shown.waiting("the last words are on their way")
        shown.event(final("goodbye", 65_000, "outbound"))
        shown.event(got("call.ended", duration_ms=27_000, reason="hangup"))
        shown.end(good())


def drawn(text: str) -> str:
    """What stays on a terminal: lines that were erased again are taken away."""
    lines = [""]
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", text):
        if part == "\n":
            lines.append("")
        elif part == "\x1b[2K":
            lines[-1] = ""
        elif part == "\x1b[1A":
            lines.pop()
        elif part == "\r" or part.startswith("\x1b"):
            continue
        else:
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def test_lines_without_a_terminal_carry_no_control_codes_and_fit_80_columns() -> None:
    file = io.StringIO()

    play(screen(Console(file=file, width=80)))

    text = file.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("~ my name is") == 1
    assert "0:01 caller   my name is david" in text
    assert "stale" not in text
    assert "1:05 agent    goodbye" in text
    assert "audio is missing: late" in text
    assert "call.ended (hangup)" in text


def test_the_header_names_the_engine_and_does_not_pretend() -> None:
    file = io.StringIO()
    PlainScreen(Console(file=file, width=80)).begin("my.wav", ENGINE, 27_000)
    PlainScreen(Console(file=file, width=80)).begin("my.wav", "faster-whisper (small.en)", 27_000)

    text = file.getvalue()
    assert "recogniser: pocketsphinx (en-us): needs no download, but is not Whisper\n" in text
    assert "recogniser: faster-whisper (small.en)\n" in text


def test_the_table_says_what_was_good_enough() -> None:
    file = io.StringIO()
    PlainScreen(Console(file=file, width=80)).end(good())

    rows = [re.split(r"\s{2,}", line.strip()) for line in file.getvalue().splitlines() if line.strip()]
    assert rows[2:] == [
        ["events", "16 stored (finals: 14), partials: 43", "ok"],
        ["in order, none missing", "no problem", "ok"],
        ["signatures valid", "59 of 59", "ok"],
        ["word error rate, caller", "0.00", "(0 of 44 words wrong)", "ok"],
        ["word error rate, agent", "0.50", "(20 of 40 words wrong)", "FAILED"],
        ["end of speech to webhook", "p50 0.40 s, p95 0.50 s"],
    ]


def test_a_terminal_replaces_partials_and_keeps_each_final_once() -> None:
    file = io.StringIO()
    shown = screen(Console(file=file, width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"}))
    assert isinstance(shown, LiveScreen)

    play(shown)

    assert "my name is" in file.getvalue()
    stays = drawn(file.getvalue())
    assert stays.count("my name is david") == 1
    assert stays.count("goodbye") == 1
    assert stays.count("whisper-bridge demo") == 1
    assert "goes on and on" not in stays
    assert "on their way" not in stays
    assert "word error rate, caller" in stays
    assert "━" not in stays


def test_a_long_partial_stays_one_line_and_shows_its_end() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=24, force_terminal=True, _environ={"TERM": "xterm"})
    shown = LiveScreen(console)
    with shown:
        shown.begin("my.wav", ENGINE, 27_000)
        shown.event(partial(LONG + "until here"))
        lines = drawn(file.getvalue()).splitlines()

    (line,) = [line for line in lines if "until here" in line]
    assert len(line) <= 80
    assert "… " in line


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_dumb_terminal_gets_lines(environment: dict[str, str]) -> None:
    shown = screen(Console(file=io.StringIO(), force_terminal=True, _environ=environment))

    assert not isinstance(shown, LiveScreen)


def test_nothing_is_drawn_wider_than_100_columns() -> None:
    console = Console(file=io.StringIO(), width=300)
    screen(console)

    assert console.width == 100


def test_for_programs_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    play(SilentScreen())

    assert capsys.readouterr() == ("", "")


def test_a_demo_without_figures_has_a_table_too() -> None:
    file = io.StringIO()
    PlainScreen(Console(file=file, width=80)).end(result([], CallReport("CA1"), {}))

    assert "FAILED" in file.getvalue()
