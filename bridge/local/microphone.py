"""The laptop's microphone as frames for Whisper, by sounddevice (PortAudio), which is only needed here."""

import asyncio
from typing import Any, Final

from bridge.errors import BridgeError
from bridge.local.dictation import FRAME, FRAME_S, Frames
from bridge.whisper.protocol import SAMPLE_RATE

INSTALL: Final = "pip install 'whisper-bridge[microphone]' (Debian also: apt install libportaudio2)"

STALLED_S: Final = 5.0
"""A device that delivers nothing for so long has been unplugged."""


class Microphone:
    """Listens to the default input for `seconds`, or until `stop` is called. A `Source` of a dictation."""

    def __init__(self, seconds: float | None = None) -> None:
        self.lost_s = 0.0
        """Seconds that were lost because the socket was slower than the speaker for 10 s."""
        self._left = None if seconds is None else max(1, round(seconds / FRAME_S))
        self._stopped = asyncio.Event()
        self._heard = asyncio.Event()
        self._sounddevice = _sounddevice()

    def stop(self) -> None:
        """Listen no more; what was said is still transcribed."""
        self._stopped.set()
        self._heard.set()

    async def __call__(self, frames: Frames) -> None:
        """Put what the microphone hears into `frames`. Raises `BridgeError` if there is none to listen to."""
        loop = asyncio.get_running_loop()

        def capture(data: Any, *_: object) -> None:  # in PortAudio's thread
            loop.call_soon_threadsafe(self._take, frames, bytes(data))

        try:
            stream = self._sounddevice.RawInputStream(
                samplerate=SAMPLE_RATE, blocksize=FRAME, channels=1, dtype="int16", callback=capture
            )
        except (self._sounddevice.PortAudioError, ValueError) as error:
            raise BridgeError(f"The microphone cannot be opened: {error}") from error
        with stream:
            while not self._stopped.is_set():
                self._heard.clear()
                try:
                    async with asyncio.timeout(STALLED_S):
                        await self._heard.wait()
                except TimeoutError:
                    raise BridgeError(f"The microphone delivered nothing for {STALLED_S:g} s") from None
        await frames.put(None)

    def _take(self, frames: Frames, frame: bytes) -> None:
        if self._stopped.is_set():
            return
        self._heard.set()
        if frames.full():
            frames.get_nowait()
            self.lost_s += FRAME_S
        frames.put_nowait(frame)
        if self._left is not None:
            self._left -= 1
            if not self._left:
                self.stop()


def _sounddevice() -> Any:
    try:
        import sounddevice  # noqa: PLC0415 - an extra
    except (ImportError, OSError):  # OSError: the package is there, PortAudio is not
        raise BridgeError(f"The microphone needs one more package: {INSTALL}") from None
    return sounddevice
