"""The three formats, as their specifications have them."""

from bridge.events import TranscriptLine
from bridge.transcript.subtitles import FORMATS, srt, text, vtt

LINES = [
    TranscriptLine("inbound", "Is 3 < 4 & <v Bob> --> so?", 2480, 3810),
    TranscriptLine("outbound", "Yes.", 3_723_004, 3_723_004),
]


def test_text() -> None:
    assert text(LINES) == "[00:00:02] Caller: Is 3 < 4 & <v Bob> --> so?\n[01:02:03] Agent: Yes.\n"


def test_webvtt() -> None:
    assert vtt(LINES) == (
        "WEBVTT\n\n00:00:02.480 --> 00:00:03.810\n<v Caller>Is 3 &lt; 4 &amp; &lt;v Bob&gt; --&gt; so?\n\n"
        "01:02:03.004 --> 01:02:03.005\n<v Agent>Yes.\n"
    )


def test_subrip() -> None:
    assert srt(LINES) == (
        "1\n00:00:02,480 --> 00:00:03,810\nCaller: Is 3 < 4 & <v Bob> --> so?\n\n"
        "2\n01:02:03,004 --> 01:02:03,005\nAgent: Yes.\n"
    )


def test_nothing_was_said() -> None:
    assert [make([]) for make in FORMATS.values()] == ["", "WEBVTT\n", ""]
