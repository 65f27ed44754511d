"""What goes over the wire: bodies, ids, timestamps and the committed schemas."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import events

CALL: dict[str, Any] = {
    "call_sid": "CA1",
    "account_sid": "AC1",
    "stream_sid": "MZ1",
    "from_": "+15550001",
    "to": "+15550002",
    "direction": "inbound",
    "parameters": {"agent": "7"},
}
SPEECH: dict[str, Any] = {
    "track": "inbound",
    "text": "hello there",
    "start_ms": 120,
    "end_ms": 900,
    "language": "en",
    "log_prob": -0.25,
    "words": [events.Word("hello", 120, 400, 0.9), events.Word("there", 420, 900, None)],
    "suspect": [],
    "recovered": False,
}
AT = "2026-08-22T10:00:00.000Z"
EXAMPLES: dict[str, events.Event] = {
    "call.started": events.CallStarted(AT, events.CallStartedData(**CALL, sequence=1, tracks=["inbound"])),
    "transcript.final": events.TranscriptFinal(AT, events.TranscriptFinalData(**CALL, **SPEECH, sequence=2)),
    "transcript.partial": events.TranscriptPartial(AT, events.SpeechData(**CALL, **SPEECH)),
    "transcript.gap": events.TranscriptGap(
        AT,
        events.TranscriptGapData(
            **CALL, sequence=3, track="outbound", start_ms=1, end_ms=2, reason="not_received"
        ),
    ),
    "transcript.late": events.TranscriptLate(AT, events.TranscriptFinalData(**CALL, **SPEECH, sequence=6)),
    "call.dtmf": events.CallDtmf(AT, events.CallDtmfData(**CALL, sequence=4, digit="#")),
    "call.ended": events.CallEnded(
        AT,
        events.CallEndedData(
            **CALL,
            sequence=5,
            reason="stop",
            duration_ms=900,
            complete=True,
            transcript=[events.TranscriptLine("inbound", "hello there", 120, 900)],
        ),
    ),
}
EVERY = {"call_sid", "account_sid", "stream_sid", "from", "to", "direction", "parameters"}
SPOKEN = {"track", "text", "start_ms", "end_ms", "language", "log_prob", "words", "suspect", "recovered"}
# The public table of the event reference, field by field.
FIELDS = {
    "call.started": EVERY | {"sequence", "tracks"},
    "transcript.final": EVERY | SPOKEN | {"sequence"},
    "transcript.partial": EVERY | SPOKEN,
    "transcript.gap": EVERY | {"sequence", "track", "start_ms", "end_ms", "reason"},
    "transcript.late": EVERY | SPOKEN | {"sequence"},
    "call.dtmf": EVERY | {"sequence", "digit"},
    "call.ended": EVERY | {"sequence", "reason", "duration_ms", "complete", "transcript"},
}


def _data_schema(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema["properties"]["data"]["$ref"].removeprefix("#/$defs/")
    found: dict[str, Any] = schema["$defs"][name]
    return found


def test_every_type_has_a_schema_an_example_and_a_row_in_the_table() -> None:
    assert set(events.TYPES) == set(EXAMPLES) == set(FIELDS)
    assert {path.stem for path in events.SCHEMAS.glob("*.json")} == set(FIELDS)


@pytest.mark.parametrize("event_type", events.TYPES)
def test_the_committed_schema_is_up_to_date(event_type: str) -> None:
    committed = json.loads((events.SCHEMAS / f"{event_type}.json").read_text(encoding="utf-8"))
    assert committed == events.schema(event_type), "run: python -m bridge.events"


@pytest.mark.parametrize("event_type", events.TYPES)
def test_the_schema_requires_and_describes_exactly_the_public_fields(event_type: str) -> None:
    schema = events.schema(event_type)
    assert set(schema["properties"]) == set(schema["required"]) == {"type", "timestamp", "data"}
    assert schema["properties"]["type"]["enum"] == [event_type]
    data = _data_schema(schema)
    assert set(data["properties"]) == set(data["required"]) == FIELDS[event_type]
    assert all(field.get("description") for field in data["properties"].values())


@pytest.mark.parametrize("event_type", events.TYPES)
def test_the_readme_shows_an_example_of_every_type_with_all_its_fields(event_type: str) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```json\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    (block,) = [block for block in blocks if json.loads(block)["type"] == event_type]
    msgspec.json.decode(block, type=events.Event)
    assert set(json.loads(block)["data"]) == FIELDS[event_type]
    assert f"**`{event_type}`**" in readme


def test_schemas_are_written_where_asked(tmp_path: Any) -> None:
    events.write_schemas(tmp_path / "schemas")
    assert len(list((tmp_path / "schemas").glob("*.json"))) == len(events.TYPES)


@pytest.mark.parametrize("event_type", events.TYPES)
def test_a_body_has_type_timestamp_and_data_and_decodes_to_the_same_event(event_type: str) -> None:
    event = EXAMPLES[event_type]
    body = events.encode(event)
    assert body.startswith(f'{{"type":"{event_type}","timestamp":"{AT}","data":{{'.encode())
    assert set(json.loads(body)["data"]) == FIELDS[event_type]
    assert msgspec.json.decode(body, type=events.Event) == event


def test_a_body_is_utf_8_even_when_a_text_is_not_well_formed() -> None:
    data = events.CallDtmfData(**{**CALL, "parameters": {"na\ud800me": "a\udfffb"}}, sequence=1, digit="1")
    body = json.loads(events.encode(events.CallDtmf(AT, data)))
    assert body["data"]["parameters"] == {"na\ufffdme": "a\ufffdb"}
    assert body["type"] == "call.dtmf"


def test_an_event_id_depends_on_call_endpoint_sequence_and_type_alone() -> None:
    first = events.event_id("CA1", "https://a.example/x", 1, "call.started")
    assert first == "evt_" + first[4:]
    assert re.fullmatch(r"evt_[a-z2-7]{26}", first)
    assert first == events.event_id("CA1", "https://a.example/x", 1, "call.started")
    others = {
        events.event_id("CA2", "https://a.example/x", 1, "call.started"),
        events.event_id("CA1", "https://a.example/y", 1, "call.started"),
        events.event_id("CA1", "https://a.example/x", 2, "call.started"),
        events.event_id("CA1", "https://a.example/x", 1, "call.ended"),
    }
    assert len(others | {first}) == 5


@pytest.mark.parametrize(
    ("unix_s", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1787392800.0, "2026-08-22T10:00:00.000Z"),
        (1787392800.1234, "2026-08-22T10:00:00.123Z"),
        (1787392799.9996, "2026-08-22T10:00:00.000Z"),
    ],
)
def test_timestamps_are_rfc_3339_in_utc_with_milliseconds(unix_s: float, text: str) -> None:
    assert events.timestamp(unix_s) == text
