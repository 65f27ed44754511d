"""The microphone, with PortAudio's part played by a double."""

import asyncio
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.local import microphone
from bridge.local.dictation import FRAME, FRAME_S, Frames
from bridge.local.microphone import Microphone

SILENCE = bytes(2 * FRAME)


class PortAudio(ModuleType):
    """As much of sounddevice as is used. `speak` is what the device's own thread does."""

    class PortAudioError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("sounddevice")
        self.broken = False
        self.open = False
        self.opened = asyncio.Event()
        self.asked: dict[str, Any] = {}
        self.RawInputStream = self._stream

    def _stream(self, *, callback: Callable[..., None], **asked: Any) -> "PortAudio":
        if self.broken:
            raise self.PortAudioError("Error querying device -1")
        self.asked, self.callback = asked, callback
        return self

    def __enter__(self) -> None:
        self.open = True
        self.opened.set()

    def __exit__(self, *_: object) -> None:
        self.open = False

    async def speak(self, *frames: bytes) -> None:
        for frame in frames:
            await asyncio.to_thread(self.callback, bytearray(frame), FRAME, None, None)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> PortAudio:
    double = PortAudio()
    monkeypatch.setitem(sys.modules, "sounddevice", double)
    return double


async def test_it_listens_until_it_is_stopped(device: PortAudio) -> None:
    frames: Frames = asyncio.Queue()
    mic = Microphone()
    listening = asyncio.create_task(mic(frames))
    await device.opened.wait()
    await device.speak(b"a" * 1024, b"b" * 1024)
    mic.stop()
    await device.speak(b"c" * 1024)
    await listening
    assert [frames.get_nowait() for _ in range(frames.qsize())] == [b"a" * 1024, b"b" * 1024, None]
    assert device.asked == {"samplerate": 16000, "blocksize": 512, "channels": 1, "dtype": "int16"}
    assert not device.open


async def test_it_listens_for_some_seconds(device: PortAudio) -> None:
    frames: Frames = asyncio.Queue()
    listening = asyncio.create_task(Microphone(0.1)(frames))
    await device.opened.wait()
    await device.speak(SILENCE, SILENCE, SILENCE, SILENCE)
    await listening
    assert frames.qsize() == 4  # three of 32 ms, and the end


async def test_a_full_queue_loses_what_is_oldest(device: PortAudio) -> None:
    frames: Frames = asyncio.Queue(2)
    mic = Microphone()
    listening = asyncio.create_task(mic(frames))
    await device.opened.wait()
    await device.speak(b"a" * 1024, b"b" * 1024, b"c" * 1024)
    mic.stop()
    assert await frames.get() == b"b" * 1024
    await listening
    assert mic.lost_s == FRAME_S


async def test_no_device(device: PortAudio) -> None:
    device.broken = True
    with pytest.raises(BridgeError, match="The microphone cannot be opened: Error querying device -1"):
        await Microphone()(asyncio.Queue())


async def test_an_unplugged_device(device: PortAudio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "STALLED_S", 0.05)
    with pytest.raises(BridgeError, match="delivered nothing for 0"):
        await Microphone()(asyncio.Queue())
    assert not device.open


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(BridgeError, match=r"pip install 'whisper-bridge\[microphone\]'"):
        Microphone()
