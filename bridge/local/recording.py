"""Recordings as telephone audio: who speaks on which track of a call."""

from collections.abc import Sequence
from pathlib import Path

from bridge.audio import mulaw, wav
from bridge.errors import UsageError
from bridge.local.twilio.twiml import Track


def load(paths: Sequence[Path]) -> dict[Track, bytes]:
    """8 kHz mu-law for each track of the call in `paths`.

    One mono file is the caller; a stereo file is the caller on the left and the agent on the right; two
    mono files are the caller and the agent. Raises UsageError for anything else and for unreadable files.
    """
    if len(paths) not in {1, 2}:
        raise UsageError(f"one or two WAV files make a call, not {len(paths)}.")
    channels = [wav.read(path, wav.TELEPHONE_HZ) for path in paths]
    if len(paths) == 2:
        for path, read in zip(paths, channels, strict=True):
            if len(read) != 1:
                raise UsageError(
                    f"{path} is stereo; of two files each must be mono: the caller, then the agent."
                )
    tracks: tuple[Track, Track] = ("inbound", "outbound")
    spoken = [mulaw.encode(samples) for read in channels for samples in read]
    return dict(zip(tracks, spoken, strict=False))
