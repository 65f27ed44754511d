import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.twilio.media import (
    EARLY_MEDIA,
    LONGEST_AUDIO,
    Dtmf,
    Event,
    Ignored,
    Media,
    MediaStream,
    Refused,
    Start,
    Stop,
)

MZ, AC, CA = "MZ" + "1" * 32, "AC" + "2" * 32, "CA" + "3" * 32
CONNECTED = '{"event":"connected","protocol":"Call","version":"1.0.0"}'
START = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": MZ,
    "start": {
        "streamSid": MZ,
        "accountSid": AC,
        "callSid": CA,
        "tracks": ["inbound", "outbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"tenant": "acme", "token": "k9"},
    },
}


def started() -> MediaStream:
    stream = MediaStream()
    stream.receive(CONNECTED.encode())
    stream.receive(json.dumps(START).encode())
    return stream


def changed_start(**changes: Any) -> str:
    return json.dumps({**START, "start": {**START["start"], **changes}})  # type: ignore[dict-item]  # it is a dict


def media(**changes: Any) -> str:
    body = {"track": "inbound", "chunk": "2", "timestamp": "40", "payload": "/////w=="} | changes
    return json.dumps({"event": "media", "sequenceNumber": "4", "streamSid": MZ, "media": body})


def one(stream: MediaStream, text: str) -> Event:
    (event,) = stream.receive(text.encode())
    return event


def test_connected_is_nothing() -> None:
    assert one(MediaStream(), CONNECTED) == Ignored("connected")


def test_start() -> None:
    assert one(MediaStream(), json.dumps(START)) == Start(
        MZ, CA, AC, ["inbound", "outbound"], {"tenant": "acme", "token": "k9"}
    )


@pytest.mark.parametrize("order", [1, -1])
def test_media_in_any_order_of_keys(order: int) -> None:
    message = json.loads(media())
    text = json.dumps(dict(list(message.items())[::order]))
    assert one(started(), text) == Media("inbound", 40, b"\xff" * 4)


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("40", 40),
        (40, 40),
        ("0", 0),
        ("", None),
        (None, None),
        (-1, None),
        ("-1", None),
        ("1e9", None),
        (1.5, None),
        ("٣", None),
        (True, None),
        (2**63, None),
        ("9" * 30, None),
        ({}, None),
    ],
)
def test_audio_is_kept_whatever_its_timestamp(timestamp: Any, expected: int | None) -> None:
    assert one(started(), media(timestamp=timestamp)) == Media("inbound", expected, b"\xff" * 4)


def test_audio_without_a_timestamp() -> None:
    text = json.dumps({"event": "media", "media": {"track": "outbound", "payload": "/////w=="}})
    assert one(started(), text) == Media("outbound", None, b"\xff" * 4)


@pytest.mark.parametrize(
    "payload",
    ["//\n//\r/w==", "__ __ _w", "/////w", base64.b64encode(b"\xff" * 4).decode().replace("/", "_")],
)
def test_base64_in_other_spellings(payload: str) -> None:
    event = one(started(), media(payload=payload))
    assert isinstance(event, Media)
    assert event.audio == b"\xff" * 4


@pytest.mark.parametrize("size", [1, 160, 161, LONGEST_AUDIO])
def test_any_length_of_audio(size: int) -> None:
    event = one(started(), media(payload=base64.b64encode(b"\x01" * size).decode()))
    assert isinstance(event, Media)
    assert len(event.audio) == size


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed"),
        ("null", "malformed"),
        ("[]", "malformed"),
        ("7", "malformed"),
        ('"media"', "malformed"),
        ("[" * 10_000, "malformed"),
        ('{"event":' * 5000, "malformed"),
        ("{}", "unknown"),
        ('{"event":7}', "unknown"),
        ('{"event":["media"]}', "unknown"),
        ('{"event":"speech"}', "unknown"),
        ('{"event":"\\ud800"}', "unknown"),
        ('{"event":"mark","mark":{"name":"x"}}', "mark"),
        ('{"event":"mark"}', "mark"),
        ('{"event":"media"}', "media_shape"),
        ('{"event":"media","media":[]}', "media_shape"),
        (media(payload=None), "media_shape"),
        (media(payload=7), "media_shape"),
        (media(payload="!!!!"), "media_base64"),
        (media(payload="a"), "media_base64"),
        (media(payload="é"), "media_base64"),
        (media(payload=""), "media_size"),
        (media(payload=base64.b64encode(bytes(LONGEST_AUDIO + 1)).decode()), "media_size"),
        (media(track="sideways"), "media_track"),
        (media(track=None), "media_track"),
        (media(track=7), "media_track"),
        (media().replace(MZ, "MZother"), "other_stream"),
        ('{"event":"stop","streamSid":"MZother"}', "other_stream"),
        ('{"event":"dtmf"}', "dtmf_shape"),
        ('{"event":"dtmf","dtmf":{"digit":"55"}}', "dtmf_shape"),
        ('{"event":"dtmf","dtmf":{"digit":"x"}}', "dtmf_shape"),
        ('{"event":"dtmf","dtmf":{"digit":5}}', "dtmf_shape"),
        (json.dumps(START), "second_start"),
        (changed_start(callSid="CA" + "9" * 32), "second_start"),
    ],
)
def test_what_is_ignored_with_a_reason(text: str, why: str) -> None:
    stream = started()
    assert one(stream, text) == Ignored(why)
    assert isinstance(one(stream, media()), Media)  # and the stream goes on


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"callSid": None}, "start_ids"),
        ({"callSid": ""}, "start_ids"),
        ({"callSid": "CA../../x"}, "start_ids"),
        ({"callSid": "CA" + "1" * 1000}, "start_ids"),
        ({"callSid": "CA" + "1" * 10_000}, "start_size"),
        ({"customParameters": {f"p{number}": "x" for number in range(1000)}}, "start_size"),
        ({"customParameters": {"p": "x" * 100_000}}, "start_size"),
        ({"callSid": "CA" + "1" * 32 + "\n"}, "start_ids"),
        ({"streamSid": "../x"}, "start_ids"),
        ({"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}}, "media_format"),
        ({"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": -1, "channels": 1}}, "media_format"),
        ({"mediaFormat": {"encoding": "audio/l16", "sampleRate": 8000, "channels": 1}}, "media_format"),
        ({"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}}, "media_format"),
        ({"mediaFormat": "mulaw"}, "media_format"),
    ],
)
def test_a_start_that_cannot_be_served_is_refused(changes: dict[str, Any], why: str) -> None:
    event = one(MediaStream(), changed_start(**changes))
    assert isinstance(event, Refused)
    assert event.why == why
    assert len(event.sentence) < 200


@pytest.mark.parametrize("body", [None, [], "start", 7])
def test_a_start_without_an_object_is_refused(body: object) -> None:
    assert isinstance(one(MediaStream(), json.dumps({**START, "start": body})), Refused)


@pytest.mark.parametrize(
    ("changes", "tracks", "parameters"),
    [
        ({"tracks": [], "customParameters": None}, [], {}),
        ({"tracks": "both", "customParameters": [1]}, [], {}),
        ({"tracks": ["inbound_track", 7, "inbound"], "customParameters": {"a": 1}}, ["inbound"], {"a": "1"}),
        ({"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": "8000", "channels": "1"}}, None, None),
        ({"mediaFormat": None}, None, None),
    ],
)
def test_a_start_in_odd_shapes_is_served(
    changes: dict[str, Any], tracks: list[str] | None, parameters: dict[str, str] | None
) -> None:
    event = one(MediaStream(), changed_start(**changes))
    assert isinstance(event, Start)
    assert tracks is None or event.tracks == tracks
    assert parameters is None or event.parameters == parameters


def test_stop_ends_the_stream_once() -> None:
    stream = started()
    stop = json.dumps({"event": "stop", "streamSid": MZ, "stop": {"accountSid": AC, "callSid": CA}})
    assert one(stream, stop) == Stop()
    assert one(stream, stop) == Ignored("second_stop")
    assert one(stream, media()) == Ignored("media_after_stop")


def test_dtmf() -> None:
    assert one(started(), '{"event":"dtmf","dtmf":{"track":"inbound_track","digit":"#"}}') == Dtmf("#")
    assert one(MediaStream(), '{"event":"dtmf","dtmf":{"digit":"1"}}') == Ignored("dtmf_outside_stream")


def test_media_before_start_is_kept_for_a_second() -> None:
    stream = MediaStream()
    for number in range(EARLY_MEDIA + 5):
        assert one(stream, media(timestamp=number)) == Ignored("media_before_start")
    first, *rest = stream.receive(json.dumps(START).encode())
    assert isinstance(first, Start)
    assert [event.timestamp_ms for event in rest if isinstance(event, Media)] == list(
        range(5, EARLY_MEDIA + 5)
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


@given(
    event=st.sampled_from(["connected", "start", "media", "dtmf", "mark", "stop", "x"]),
    key=st.sampled_from(["start", "media", "dtmf", "mark", "stop", "streamSid"]),
    value=JSON,
)
def test_no_message_raises(event: str, key: str, value: object) -> None:
    for stream in (MediaStream(), started()):
        stream.receive(json.dumps({"event": event, key: value}).encode())


@given(text=st.binary() | st.text().map(str.encode))
def test_no_text_raises(text: bytes) -> None:
    MediaStream().receive(text)
