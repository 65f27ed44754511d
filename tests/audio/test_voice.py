import os
import subprocess
import sys

import numpy as np
import pytest

from bridge.audio import mulaw, voice
from bridge.audio.upsample import FRAME, FRAME_OUT
from bridge.audio.voice import JOIN, SHORTEST
from bridge.audio.wav import TELEPHONE_HZ, read_mono
from bridge.local import speech

SECONDS = 20
AT = np.arange(SECONDS * mulaw.SAMPLE_RATE) / mulaw.SAMPLE_RATE


def heard(audio: bytes) -> voice.Stretches:
    return voice.stretches(map(voice.load(), voice.frames(audio)), len(audio))


def tones(*hertz: float) -> np.ndarray:
    return np.asarray(sum(np.sin(2 * np.pi * each * AT) for each in hertz))


def chords() -> np.ndarray:
    """Four chords with overtones, and a drum, at 100 beats a minute."""
    scale = np.array(
        [(261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7)]
    )
    beat = AT % 0.6
    notes = scale[(AT / 2.4).astype(int) % 4]
    strings = sum(
        np.sin(2 * np.pi * notes[:, n] * part * AT) / part for n in range(3) for part in (1, 2, 3, 4)
    )
    drum = np.random.default_rng(1).standard_normal(len(AT)) * np.exp(-20 * beat)
    return np.asarray(strings * np.exp(-1.5 * beat) + 3 * drum)


SOUNDS = {
    "silence": 0 * AT,
    "line noise": 300 * np.random.default_rng(0).standard_normal(len(AT)),
    "ringing": 6000 * tones(440, 480) * (AT % 6 < 2),
    "busy": 6000 * tones(480, 620) * (AT % 1 < 0.5),
    "a key held": 6000 * tones(770, 1336) * (AT % 0.3 < 0.12),
    "chords and drums": 900 * chords(),
    "fading music": 900 * chords() * (0.5 - 0.5 * np.cos(2 * np.pi * AT / 8)),
    "music with pauses": 900 * chords() * (AT % 5 < 3),
}


@pytest.mark.parametrize("sound", SOUNDS)
def test_nobody_speaks_in(sound: str) -> None:
    assert heard(mulaw.encode(np.clip(SOUNDS[sound], -32000, 32000).astype(np.int16))) == []


@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_every_sentence_is_heard_where_it_is_said(gain: float) -> None:
    caller = [line for line in speech.script() if line.speaker == "caller"]
    samples = read_mono(speech.CALLER, TELEPHONE_HZ)
    found = heard(mulaw.encode((samples * gain).astype(np.int16)))
    for line in caller:
        covered = sum(
            max(0, min(end, line.end_ms * 8) - max(begin, line.start_ms * 8)) for begin, end in found
        )
        assert covered > 0.6 * (line.end_ms - line.start_ms) * 8, line.text
    spoken = sum(line.end_ms - line.start_ms for line in caller) * 8
    assert sum(end - begin for begin, end in found) < 1.3 * spoken


def test_speech_over_music_is_heard() -> None:
    samples = read_mono(speech.CALLER, TELEPHONE_HZ)[: len(AT)].astype(float)
    music = chords()[: len(samples)]
    found = heard(mulaw.encode((samples + 300 * music).astype(np.int16)))
    assert sum(end - begin for begin, end in found) > 3 * mulaw.SAMPLE_RATE


def test_stretches_are_joined_over_short_pauses_and_what_is_too_short_is_dropped() -> None:
    word, pause = -(-SHORTEST // FRAME), JOIN // FRAME
    pattern = [1.0] * word + [0.0] * pause + [1.0] + [0.0] * 30 + [1.0] * (word - 1) + [0.49] * 9
    length = len(pattern) * FRAME
    assert voice.stretches(iter(pattern), length) == [(0, (word + pause + 1) * FRAME)]
    assert voice.stretches(iter([1.0] * word), word * FRAME - 7) == [(0, word * FRAME - 7)]


def test_frames_are_those_of_the_tick_and_the_last_is_filled_up() -> None:
    audio = bytes(range(256)) * 33 + bytes(100)
    frames = list(voice.frames(audio))
    assert len(frames) == 34
    assert {len(frame) for frame in frames} == {2 * FRAME_OUT}
    whole = np.frombuffer(b"".join(frames), "<i2")
    assert (
        whole[31 : 31 + 2 * (len(audio) - 15) : 2].tolist()
        == mulaw.decode(audio)[:-15].tolist()[: len(whole)]
    )
    assert list(voice.frames(b"")) == []


def test_each_detector_has_a_state_of_its_own() -> None:
    one, other = voice.load(), voice.load()
    silence = bytes(2 * FRAME_OUT)
    first = one(silence)
    for _ in range(5):
        one(silence)
    assert other(silence) == first


def test_a_detector_needs_no_thread_but_the_caller_s_and_leaves_the_environment_alone() -> None:
    program = (
        "import os\n"
        "from bridge.audio import voice\n"
        "threads = lambda: len(os.listdir('/proc/self/task')) if os.path.isdir('/proc/self/task') else 0\n"
        "before, others = dict(os.environ), threads()\n"
        "voice.load()(bytes(1024))\n"
        "print(threads() - others, before == dict(os.environ))\n"
    )
    for limit in ({}, {"OMP_THREAD_LIMIT": "3"}):
        run = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env=dict(os.environ) | limit,
        )
        assert run.stdout.split() == ["0", "True"]
