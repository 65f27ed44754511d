"""The transcript of a call as people and players read it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from bridge.events import TranscriptLine

SPEAKERS: Final = {"inbound": "Caller", "outbound": "Agent"}
"""Who speaks on a track: the caller, or what the caller hears."""


def text(lines: Iterable[TranscriptLine]) -> str:
    """One line for each final: when, who, what."""
    return "".join(f"[{_clock(line.start_ms, '.')[:-4]}] {_speaker(line)}: {line.text}\n" for line in lines)


def vtt(lines: Iterable[TranscriptLine]) -> str:
    """WebVTT (W3C): a cue for each final, its speaker as a voice."""
    cues = (
        f"{_clock(line.start_ms, '.')} --> {_clock(_end(line), '.')}\n<v {_speaker(line)}>{_escaped(line.text)}\n"
        for line in lines
    )
    return "\n".join(("WEBVTT\n", *cues))


def srt(lines: Iterable[TranscriptLine]) -> str:
    """SubRip: numbered cues, the speaker before the text."""
    return "\n".join(
        f"{number}\n{_clock(line.start_ms, ',')} --> {_clock(_end(line), ',')}\n{_speaker(line)}: {line.text}\n"
        for number, line in enumerate(lines, 1)
    )


FORMATS: Final[Mapping[str, Callable[[Sequence[TranscriptLine]], str]]] = {
    "text": text,
    "vtt": vtt,
    "srt": srt,
}
"""By the name of the format."""


def _clock(milliseconds: int, mark: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{rest:03}"


def _end(line: TranscriptLine) -> int:
    # A cue that ends where it begins is never shown.
    return max(line.end_ms, line.start_ms + 1)


def _speaker(line: TranscriptLine) -> str:
    return SPEAKERS.get(line.track, line.track)


def _escaped(said: str) -> str:
    # In WebVTT these begin tags and character references, and an arrow would be read as times.
    return said.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
