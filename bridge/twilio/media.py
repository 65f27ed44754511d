"""Twilio Media Streams, sans-I/O: text messages in, typed events out, in every shape that has been seen.

Twilio sends numbers as strings; some relays send them as numbers. Audio that can be decoded is kept whatever
else is wrong with its message. What cannot be used is an `Ignored`, for a counter, and never an exception.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from bridge.events import Track

LONGEST_START: Final = 8 * 1024
"""Characters of a `start`. It carries what the TwiML gave the stream: a token, and a few short parameters."""

LONGEST_AUDIO: Final = 8000
"""Bytes of audio in one message, a second of it. Twilio sends 160."""

EARLY_MEDIA: Final = 50
"""Media messages kept that come before `start`: a second of audio. Some senders do that under load."""

LATEST_MS: Final = 7 * 86_400_000
"""A timestamp beyond a week is not one."""

CALL_SID: Final = re.compile(r"CA[0-9A-Za-z]{1,62}")
_STREAM_SID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_TRACKS: Final[dict[object, Track]] = {
    "inbound": "inbound",
    "outbound": "outbound",
    "inbound_track": "inbound",
    "outbound_track": "outbound",
}


@dataclass(frozen=True, slots=True)
class Start:
    """The stream begins."""

    stream_sid: str
    call_sid: str
    account_sid: str
    tracks: list[Track]
    parameters: dict[str, str]


class Media(
    msgspec.Struct, frozen=True, gc=False, rename={"timestamp_ms": "timestamp", "audio": "payload"}.get
):
    """Audio (mu-law, 8 kHz) of one track. `timestamp_ms` counts from the stream's start; None if unreadable."""

    track: Track
    timestamp_ms: Annotated[int, msgspec.Meta(ge=0, le=LATEST_MS)] | None
    audio: Annotated[bytes, msgspec.Meta(min_length=1, max_length=LONGEST_AUDIO)]


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key."""

    digit: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The stream is over."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The stream cannot be transcribed: close the socket with 1008. `why` is a word for a metric."""

    why: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message without consequence. `why` is a word for a metric."""

    why: str


Event = Start | Media | Dtmf | Stop | Refused | Ignored


class _MediaMessage(msgspec.Struct, gc=False, tag_field="event", tag="media"):
    media: Media  # its base64 is decoded too
    streamSid: str = ""  # noqa: N815 - Twilio's name


_WELL_FORMED: Final = msgspec.json.Decoder(_MediaMessage, strict=False)  # numbers may be strings


class MediaStream:
    """One socket's conversation: `start` first, then audio, then `stop`."""

    def __init__(self) -> None:
        self.start: Start | None = None
        self._stopped = False
        self._early: list[Media] = []
        self._live = ""  # the stream's id, between `start` and `stop`

    def media(self, text: bytes) -> Media | None:
        """The audio of a message that is as Twilio sends it while the stream goes on; any other is for `receive`."""
        message = _well_formed(text)
        return message.media if message is not None and message.streamSid == self._live != "" else None

    def receive(self, text: bytes) -> list[Event]:
        """What a message means; more than one event only when `start` frees audio that came before it."""
        if (well_formed := _well_formed(text)) is not None:
            media = well_formed.media
            return [self._media(well_formed.streamSid, media.track, media.timestamp_ms, media.audio)]
        try:
            message = json.loads(text.decode())
        except (ValueError, RecursionError):
            return [Ignored("malformed")]
        if not isinstance(message, dict):
            return [Ignored("malformed")]
        kind = message.get("event")
        if kind == "start":
            return self._started(message, len(text))
        read = {"media": self._irregular_media, "stop": self._stop, "dtmf": self._dtmf}.get(_text(kind))
        if read is not None:
            return [read(message)]
        return [Ignored(kind if kind in ("connected", "mark") else "unknown")]

    def _media(self, stream_sid: str, track: object, timestamp: object, audio: bytes) -> Event:
        if self._stopped:
            return Ignored("media_after_stop")
        if self.start is not None and stream_sid and stream_sid != self.start.stream_sid:
            return Ignored("other_stream")
        name = _TRACKS.get(track)
        if name is None:
            return Ignored("media_track")
        if not 0 < len(audio) <= LONGEST_AUDIO:
            return Ignored("media_size")
        media = Media(name, _milliseconds(timestamp), audio)
        if self.start is None:
            self._early.append(media)
            del self._early[:-EARLY_MEDIA]
            return Ignored("media_before_start")
        return media

    def _irregular_media(self, message: Mapping[str, Any]) -> Event:
        media = message.get("media")
        payload = media.get("payload") if isinstance(media, dict) else None
        if not isinstance(media, dict) or not isinstance(payload, str):
            return Ignored("media_shape")
        compact = "".join(payload.split()).rstrip("=").replace("-", "+").replace("_", "/")
        try:
            audio = base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
        except (binascii.Error, ValueError):
            return Ignored("media_base64")
        track = media.get("track")
        name = track if isinstance(track, str) else ""
        return self._media(_text(message.get("streamSid")), name, media.get("timestamp"), audio)

    def _started(self, message: Mapping[str, Any], size: int) -> list[Event]:
        if self.start is not None or self._stopped:
            return [Ignored("second_start")]
        if size > LONGEST_START:
            return [Refused("start_size", f"the start message has more than {LONGEST_START} characters")]
        body = message.get("start")
        if not isinstance(body, dict):
            return [Refused("start_shape", "the start message has no object named start")]
        stream_sid = _text(body.get("streamSid")) or _text(message.get("streamSid"))
        call_sid = _text(body.get("callSid"))
        if not CALL_SID.fullmatch(call_sid) or not _STREAM_SID.fullmatch(stream_sid):
            return [Refused("start_ids", "the start message has no valid callSid and streamSid")]
        if problem := _format_problem(body.get("mediaFormat")):
            return [Refused("media_format", problem)]
        raw = body.get("customParameters")
        parameters = {_text(k): _parameter(v) for k, v in raw.items()} if isinstance(raw, dict) else {}
        named = body.get("tracks")
        tracks = (
            [_TRACKS[t] for t in named if isinstance(t, str) and t in _TRACKS]
            if isinstance(named, list)
            else []
        )
        self._live = stream_sid
        self.start = Start(
            stream_sid, call_sid, _text(body.get("accountSid")), list(dict.fromkeys(tracks)), parameters
        )
        early, self._early = self._early, []
        return [self.start, *early]

    def _stop(self, message: Mapping[str, Any]) -> Event:
        stream_sid = _text(message.get("streamSid"))
        if self.start is None or (stream_sid and stream_sid != self.start.stream_sid):
            return Ignored("other_stream")
        if self._stopped:
            return Ignored("second_stop")
        self._stopped = True
        self._live = ""
        return Stop()

    def _dtmf(self, message: Mapping[str, Any]) -> Event:
        body = message.get("dtmf")
        digit = body.get("digit") if isinstance(body, dict) else None
        if not isinstance(digit, str) or len(digit) != 1 or digit not in "0123456789*#ABCDabcd":
            return Ignored("dtmf_shape")
        if self.start is None or self._stopped:
            return Ignored("dtmf_outside_stream")
        return Dtmf(digit)


def _well_formed(text: bytes) -> _MediaMessage | None:
    try:
        return _WELL_FORMED.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _format_problem(media_format: Any) -> str:
    """What is wrong with the stream's format, in a sentence; empty if it can be transcribed or was not given."""
    if media_format is None:
        return ""
    if not isinstance(media_format, dict):
        return "mediaFormat is not an object"
    encoding = media_format.get("encoding", "audio/x-mulaw")
    rate, channels = media_format.get("sampleRate", 8000), media_format.get("channels", 1)
    if encoding == "audio/x-mulaw" and str(rate) == "8000" and str(channels) == "1":
        return ""
    return f"the stream must be audio/x-mulaw, 8000 Hz, mono, not {encoding!a:.40}, {rate!a:.20}, {channels!a:.20}"


def _milliseconds(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LATEST_MS:
        return value
    return None


def _parameter(value: object) -> str:
    """A custom parameter; Twilio sends strings, and what a relay sends instead is kept as JSON."""
    return _text(value if isinstance(value, str) else json.dumps(value))


def _text(value: object) -> str:
    """A string as it is, without what UTF-8 cannot carry; anything else is empty."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else ""
