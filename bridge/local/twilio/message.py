"""The text frames of Media Streams, as Twilio writes them: numbers of the counters are strings.

https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Final

from bridge.local.twilio.twiml import Track

CONNECTED: Final = '{"event":"connected","protocol":"Call","version":"1.0.0"}'


class Writer:
    """Writes the messages of one stream; owns its counters."""

    def __init__(
        self, account_sid: str, call_sid: str, stream_sid: str, *, shared_chunks: bool = False
    ) -> None:
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._stream_sid = stream_sid
        self._shared_chunks = shared_chunks
        self._sequence = 0
        self._chunks: dict[str, int] = {}

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
        """One frame of mu-law. Written by hand: this runs a hundred times a second and call."""
        self._sequence += 1
        counter = "" if self._shared_chunks else track
        chunk = self._chunks[counter] = self._chunks.get(counter, 0) + 1
        return (
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"{track}","chunk":"{chunk}",'
            f'"timestamp":"{timestamp_ms}","payload":"{b64encode(payload).decode()}"}},'
            f'"streamSid":"{self._stream_sid}"}}'
        )

    def dtmf(self, digit: str) -> str:
        """A key that the caller pressed."""
        return self._write("dtmf", {"track": "inbound_track", "digit": digit})

    def mark(self, name: str) -> str:
        """The echo of a mark that the other side sent."""
        return self._write("mark", {"name": name})

    def stop(self) -> str:
        """The stream is over."""
        return self._write("stop", {"accountSid": self._account_sid, "callSid": self._call_sid})

    def _write(self, event: str, body: Mapping[str, object]) -> str:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: body,
            "streamSid": self._stream_sid,
        }
        return json.dumps(message, separators=(",", ":"))
