"""The text frames of Media Streams, as Twilio writes them: numbers of the counters are strings.

https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from bridge.local.twilio import frame
from bridge.local.twilio.twiml import Track

CONNECTED: Final = '{"event":"connected","protocol":"Call","version":"1.0.0"}'

_REMEMBERED: Final = 8192
"""Media messages of 300 bytes: what a thousand calls of one recording have between the first and the last of them."""


class Writer:
    """Writes the messages of one stream; owns its counters."""

    def __init__(
        self, account_sid: str, call_sid: str, stream_sid: str, *, shared_chunks: bool = False
    ) -> None:
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._stream_sid = stream_sid
        self._tail = f'"streamSid":"{stream_sid}"}}'
        self._tails = [frame.masked(self._tail, after) for after in range(4)]
        self._shared_chunks = shared_chunks
        self._sequence = 0
        self._chunks = defaultdict[str, int](int)

    def start(self, tracks: Sequence[Track], parameters: Mapping[str, str]) -> str:
        """The stream begins; this is sequence number 1."""
        return self._write(
            "start",
            {
                "accountSid": self._account_sid,
                "streamSid": self._stream_sid,
                "callSid": self._call_sid,
                "tracks": list(tracks),
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": dict(parameters),
            },
        )

    def media(self, track: Track, timestamp_ms: int, payload: bytes) -> str:
        """20 ms of mu-law."""
        return _media(track, *self._counted(track), timestamp_ms, payload) + self._tail

    def media_frame(self, track: Track, timestamp_ms: int, payload: bytes) -> bytes:
        """The same as a whole WebSocket frame: this runs a hundred times a second and call."""
        head, cut = _media_head(track, *self._counted(track), timestamp_ms, payload, len(self._tail))
        return head + self._tails[cut]

    def dtmf(self, digit: str) -> str:
        """A key that the caller pressed."""
        return self._write("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        """The echo of a mark that the other side sent."""
        return self._write("mark", {"name": name})

    def stop(self) -> str:
        """The stream is over."""
        return self._write("stop", {"accountSid": self._account_sid, "callSid": self._call_sid})

    def _counted(self, track: Track) -> tuple[int, int]:
        """The sequence and chunk numbers of one more media message."""
        self._sequence = sequence = self._sequence + 1
        counter = "" if self._shared_chunks else track
        self._chunks[counter] = chunk = self._chunks[counter] + 1
        return sequence, chunk

    def _write(self, event: str, body: Mapping[str, object]) -> str:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: body,
            "streamSid": self._stream_sid,
        }
        return json.dumps(message, separators=(",", ":"))


def _media(track: Track, sequence: int, chunk: int, timestamp_ms: int, payload: bytes) -> str:
    """A media message up to the stream's identifier: all that differs from one stream to another comes last."""
    return (
        f'{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"{track}","chunk":"{chunk}",'
        f'"timestamp":"{timestamp_ms}","payload":"{b64encode(payload).decode()}"}},'
    )


@lru_cache(_REMEMBERED)
def _media_head(  # noqa: PLR0917 - a cache finds by places faster than by names
    track: Track, sequence: int, chunk: int, timestamp_ms: int, payload: bytes, following: int
) -> tuple[bytes, int]:
    """The frame of such a message without the `following` bytes at its end, and the place in the mask where they begin.

    Calls that say the same send the same, one after the other.
    """
    text = _media(track, sequence, chunk, timestamp_ms, payload)
    return frame.head(len(text) + following) + frame.masked(text), len(text) % 4
