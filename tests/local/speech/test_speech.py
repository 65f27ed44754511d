import wave
from itertools import pairwise

import numpy as np
import pytest

from bridge.local import speech


def samples(path: str) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    with wave.open(path) as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (1, 2, 8000)
        return np.frombuffer(wav.readframes(wav.getnframes()), np.int16)


def test_the_tracks_are_one_call_of_about_half_a_minute() -> None:
    caller, agent = samples(str(speech.CALLER)), samples(str(speech.AGENT))
    assert len(caller) == len(agent)
    assert 20 < len(caller) / 8000 < 32


@pytest.mark.parametrize("speaker", ["caller", "agent"])
def test_speech_is_where_the_script_says(speaker: speech.Speaker) -> None:
    audio = samples(str(speech.CALLER if speaker == "caller" else speech.AGENT)).astype(np.int32)
    silent = np.ones(len(audio), dtype=bool)
    for line in speech.script():
        if line.speaker == speaker:
            assert np.abs(audio[line.start_ms * 8 : line.end_ms * 8]).max() > 2000
            silent[line.start_ms * 8 - 400 : line.end_ms * 8 + 400] = False
    assert np.abs(audio[silent]).max() < 500
    assert np.abs(audio).max() < 32_000


def test_the_call_is_a_conversation_with_a_slight_overlap() -> None:
    lines = speech.script()
    assert {line.speaker for line in lines} == {"caller", "agent"}
    pauses = [after.start_ms - before.end_ms for before, after in pairwise(lines)]
    assert min(pauses) < 0
    assert max(pauses) < 1000


def test_the_script_for_people_says_the_same() -> None:
    told = (speech.CALLER.parent / "script.txt").read_text().splitlines()
    assert told == [f"{line.speaker}: {line.text}" for line in speech.script()]
    assert speech.text("caller").startswith("My name is")
