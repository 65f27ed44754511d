"""Recreates the demo call: `python -m bridge.local.speech.make` (needs flite and sox).

Each sentence is synthesised by itself, brought to 8 kHz, and laid on its speaker's track at its place
on the call's clock. The same versions of flite and sox give the same bytes.
"""

import json
import re
import subprocess
import sys
import tempfile
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

RATE = 8000
HERE = Path(__file__).parent

VOICES = {"caller": "rms", "agent": "slt"}
"""flite's voices."""

VOLUME = 0.34
"""flite speaks near full scale; a telephone line does not."""

AUDIBLE = 0.02
"""Of a sentence's peak: speech begins and ends where its samples first and last exceed this."""

LEAD_MS = 500
TAIL_MS = 1000


@dataclass(frozen=True)
class Line:
    """One sentence, `pause_ms` after the end of the one before it (negative: both speak)."""

    speaker: str
    text: str
    pause_ms: int
    stretch: float = 1.0
    """How much longer than flite's own its sounds are: below 1, it is said faster."""


CALL = (
    Line("agent", "Good afternoon, how can I help you today?", 0),
    Line("caller", "My name is David Miller.", 400),
    Line("caller", "I am calling about the order I made last week.", 500),
    Line("caller", "It has not come yet.", 500),
    Line("agent", "All right.", 300),
    Line("agent", "It will be there on Friday morning.", 500, 0.9),
    Line("agent", "Would that be all right?", 500, 0.9),
    Line("caller", "That is good news.", 350),
    Line("caller", "I would like to pay by credit card.", 550),
    Line("agent", "No problem at all.", 250, 0.9),
    Line("agent", "I will tell the driver.", 500, 0.9),
    Line("agent", "Would you like anything else?", 600, 0.9),
    Line("caller", "No, that is all I wanted.", 300),
    Line("caller", "Goodbye.", 550),
    Line("agent", "You are very welcome.", -200, 0.9),
)


def synthesise(line: Line) -> npt.NDArray[np.int16]:
    """One sentence at 8 kHz, with the silence that flite puts around it."""
    # Bare words: punctuation would change flite's melody from that of a plain sentence.
    text = re.sub(r"[^a-z' ]", "", line.text.lower())
    with tempfile.TemporaryDirectory() as folder:
        spoken, narrow = f"{folder}/spoken.wav", f"{folder}/narrow.wav"
        flite = ["flite", "-voice", VOICES[line.speaker], "--setf", f"duration_stretch={line.stretch}"]
        # -D: no dither, which would be random.
        sox = ["sox", "-D", spoken, "-r", str(RATE), "-b", "16", "-c", "1", narrow, "vol", str(VOLUME)]
        subprocess.run([*flite, "-t", text, "-o", spoken], check=True)  # noqa: S603 - our own words
        subprocess.run(sox, check=True)  # noqa: S603 - as above
        with wave.open(narrow) as wav:
            return np.frombuffer(wav.readframes(wav.getnframes()), dtype="<i2")


def main() -> None:
    """Write caller.wav, agent.wav, script.txt and script.json beside this file."""
    placed, script, clock = [], [], LEAD_MS * RATE // 1000
    for line in CALL:
        audio = synthesise(line)
        loud = np.flatnonzero(np.abs(audio.astype(np.int32)) > AUDIBLE * np.abs(audio).max())
        first, last = int(loud[0]), int(loud[-1])
        start = clock + line.pause_ms * RATE // 1000
        clock = start + last - first
        placed.append((line.speaker, start - first, audio))
        times = {"start_ms": start * 1000 // RATE, "end_ms": clock * 1000 // RATE}
        script.append({"speaker": line.speaker, "text": line.text, **times})
    length = clock + TAIL_MS * RATE // 1000
    for speaker in VOICES:
        track = np.zeros(length, dtype="<i2")
        for owner, start, audio in placed:
            if owner == speaker:
                track[start : start + len(audio)] += audio
        with wave.open(str(HERE / f"{speaker}.wav"), "wb") as wav:
            wav.setnchannels(1)
            wav.setsampwidth(2)
            wav.setframerate(RATE)
            wav.writeframes(track.tobytes())
    (HERE / "script.txt").write_text("".join(f"{line.speaker}: {line.text}\n" for line in CALL))
    (HERE / "script.json").write_text(json.dumps(script, indent=1) + "\n")
    sys.stdout.write(f"{len(CALL)} sentences, {length / RATE:.1f} s\n")


if __name__ == "__main__":
    main()
