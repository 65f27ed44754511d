"""The webhook events: what a downstream agent receives, field by field.

The JSON Schemas under `bridge/schemas/` are generated from these types (`python -m bridge.events`);
a test holds README, schemas and code together. All times on a call's clock are milliseconds: 0 is
the first media of either track.
"""

import base64
import hashlib
import inspect
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

SCHEMAS = Path(__file__).parent / "schemas"
"""Where the generated JSON Schemas lie, one file per type."""

Track = Literal["inbound", "outbound"]
"""`inbound` is what the caller says, `outbound` what the caller hears."""

TrackField = Annotated[Track, Meta(description="`inbound` is the caller, `outbound` what the caller hears.")]
StartMs = Annotated[int, Meta(description="Where it begins on the call's clock, in ms.")]
EndMs = Annotated[int, Meta(description="Where it ends on the call's clock, in ms.")]
Sequence = Annotated[int, Meta(description="1, 2, 3 ... without a hole per call and endpoint.", ge=1)]
Timestamp = Annotated[
    str, Meta(description="When it happened: RFC 3339, UTC.", extra_json_schema={"format": "date-time"})
]


class Word(msgspec.Struct, frozen=True):
    """One recognised word and where it lies on the call's clock."""

    word: Annotated[str, Meta(description="The word as it stands in the text.")]
    start_ms: StartMs
    end_ms: EndMs
    probability: Annotated[float | None, Meta(description="Whisper's certainty, 0 to 1, where it gives one.")]


class CallData(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """What every event says about its call. `parameters` are the stream's own, without the bridge's token."""

    call_sid: Annotated[str, Meta(description="Twilio's id of the call, CA...")]
    account_sid: Annotated[str, Meta(description="The Twilio account, AC...")]
    stream_sid: Annotated[str, Meta(description="Twilio's id of the media stream, MZ...")]
    from_: Annotated[str, Meta(description="Who calls.")]
    to: Annotated[str, Meta(description="Who is called.")]
    direction: Annotated[str, Meta(description="Twilio's word for the call's direction.")]
    parameters: Annotated[dict[str, str], Meta(description="The stream's own <Parameter> values.")]


class SequencedData(CallData, frozen=True, kw_only=True):
    """An event of the ordered stream. `sequence` is 1, 2, 3 ... without a hole per call and endpoint."""

    sequence: Sequence


class CallStartedData(SequencedData, frozen=True, kw_only=True):
    """The call's media began to arrive."""

    tracks: Annotated[list[Track], Meta(description="The tracks that are transcribed.")]


class SpeechData(CallData, frozen=True, kw_only=True):
    """What was understood, and where on the call's clock it was said.

    `suspect` lists reasons to doubt it; `recovered` says that it came from replayed audio.
    """

    track: TrackField
    text: Annotated[str, Meta(description="What was understood.")]
    start_ms: StartMs
    end_ms: EndMs
    language: Annotated[str | None, Meta(description="The language as a code, where it is known.")]
    log_prob: Annotated[float | None, Meta(description="Whisper's mean log probability, where it gives one.")]
    words: Annotated[list[Word], Meta(description="Each word with its time; may be empty.")]
    suspect: Annotated[list[str], Meta(description="Reasons to doubt the text; usually empty.")]
    recovered: Annotated[bool, Meta(description="True when it came from replayed audio.")]


class TranscriptFinalData(SpeechData, frozen=True, kw_only=True):
    """A final transcript; `sequence` as in every stored event."""

    sequence: Sequence


class TranscriptGapData(SequencedData, frozen=True, kw_only=True):
    """Audio that the bridge never received or had to drop."""

    track: TrackField
    start_ms: StartMs
    end_ms: EndMs
    reason: Annotated[str, Meta(description="Why the audio is missing.")]


class CallDtmfData(SequencedData, frozen=True, kw_only=True):
    """A key that the caller pressed."""

    digit: Annotated[str, Meta(description="One of 0-9, *, #, A-D.")]


class TranscriptLine(msgspec.Struct, frozen=True):
    """One final in the whole transcript of a call."""

    track: TrackField
    text: Annotated[str, Meta(description="What was understood.")]
    start_ms: StartMs
    end_ms: EndMs


class CallEndedData(SequencedData, frozen=True, kw_only=True):
    """The call's last event. `complete` is false while audio is still being recovered."""

    reason: Annotated[str, Meta(description="Why the call ended.")]
    duration_ms: Annotated[int, Meta(description="Length of the call on its own clock, in ms.")]
    complete: Annotated[bool, Meta(description="False when audio is still being recovered.")]
    transcript: Annotated[
        list[TranscriptLine], Meta(description="Every final of the call, both tracks, in order of start_ms.")
    ]


class CallStarted(msgspec.Struct, frozen=True, tag_field="type", tag="call.started"):
    """The first event of a call."""

    timestamp: Timestamp
    data: CallStartedData


class TranscriptFinal(msgspec.Struct, frozen=True, tag_field="type", tag="transcript.final"):
    """A final transcript, in order, delivered at least once."""

    timestamp: Timestamp
    data: TranscriptFinalData


class TranscriptLate(msgspec.Struct, frozen=True, tag_field="type", tag="transcript.late"):
    """A final transcript that was found after `call.ended`."""

    timestamp: Timestamp
    data: TranscriptFinalData


class TranscriptPartial(msgspec.Struct, frozen=True, tag_field="type", tag="transcript.partial"):
    """What Whisper understands so far, replace-style, best effort."""

    timestamp: Timestamp
    data: SpeechData


class TranscriptGap(msgspec.Struct, frozen=True, tag_field="type", tag="transcript.gap"):
    """Audio that is missing, with its place on the call's clock."""

    timestamp: Timestamp
    data: TranscriptGapData


class CallDtmf(msgspec.Struct, frozen=True, tag_field="type", tag="call.dtmf"):
    """A DTMF digit."""

    timestamp: Timestamp
    data: CallDtmfData


class CallEnded(msgspec.Struct, frozen=True, tag_field="type", tag="call.ended"):
    """The last event of a call; only `transcript.late` may follow it."""

    timestamp: Timestamp
    data: CallEndedData


Event = (
    CallStarted | TranscriptFinal | TranscriptLate | TranscriptPartial | TranscriptGap | CallDtmf | CallEnded
)

TYPES: Mapping[str, type[Event]] = {
    str(struct.__struct_config__.tag): struct
    for struct in (
        CallStarted,
        TranscriptFinal,
        TranscriptPartial,
        TranscriptGap,
        TranscriptLate,
        CallDtmf,
        CallEnded,
    )
}
"""Every event type by its name on the wire."""


def event_id(call_sid: str, endpoint: str, sequence: int, event_type: str) -> str:
    """The event's `webhook-id`: the same whichever process computes it, before or after a crash."""
    name = "\n".join((call_sid, endpoint, str(sequence), event_type))
    digest = hashlib.sha256(name.encode()).digest()
    return "evt_" + base64.b32encode(digest).decode().lower()[:26]


def timestamp(unix_s: float) -> str:
    """A moment (seconds since 1970) as RFC 3339 in UTC with milliseconds: `2026-08-22T10:00:00.000Z`."""
    seconds, ms = divmod(round(unix_s * 1000), 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def encode(event: Event) -> bytes:
    """The body of a webhook. Store these bytes: every attempt sends them, and signatures cover them."""
    try:
        return msgspec.json.encode(event)
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8. The event matters more than that character.
        return msgspec.json.encode(_well_formed(event))


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_well_formed(item) for item in value]
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {name: _well_formed(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    return value


def schema(event_type: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one event type. Unknown fields are allowed: new ones may be added."""
    struct = TYPES[event_type]
    definitions = msgspec.json.schema(struct)["$defs"]
    for definition in definitions.values():  # Python 3.13 strips a docstring's indentation, older ones do not
        definition["description"] = inspect.cleandoc(definition["description"])
    own = definitions.pop(struct.__name__)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **own,
        "title": event_type,
        "$defs": definitions,
    }


def write_schemas(directory: Path = SCHEMAS) -> None:
    """Write every type's schema to `directory`/<type>.json."""
    directory.mkdir(exist_ok=True)
    for event_type in TYPES:
        text = json.dumps(schema(event_type), indent=2, ensure_ascii=False)
        (directory / f"{event_type}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
