from xml.etree import ElementTree as ET

from bridge.config import (
    CallFlow,
    NumberSettings,
    TranscriptConfig,
    TwilioConfig,
    WebhookConfig,
    WhisperConfig,
)
from bridge.twilio.addresses import Addresses
from bridge.twilio.twiml import with_stream, without_stream

ADDRESSES = Addresses.of("https://b.example.com")


def number(then: str | CallFlow = "", **twilio: str) -> NumberSettings:
    return NumberSettings(
        "+1",
        CallFlow(then) if isinstance(then, str) else then,
        TwilioConfig.model_validate(twilio),
        WhisperConfig(),
        WebhookConfig(),
        TranscriptConfig(),
    )


def test_start_streams_both_tracks_and_goes_on_with_the_call_flow() -> None:
    response = ET.fromstring(with_stream(number("https://a.example.com/ivr?x=1&y=2"), ADDRESSES, "v1.token"))
    start, redirect = response
    (stream,) = start
    name = stream.attrib.pop("name")
    assert start.tag == "Start"
    assert name.startswith("bridge-")
    assert stream.attrib == {
        "url": "wss://b.example.com/twilio/media",
        "track": "both_tracks",
        "statusCallback": "https://b.example.com/twilio/stream-status",
        "statusCallbackMethod": "POST",
    }
    assert [p.attrib for p in stream] == [{"name": "bridge_token", "value": "v1.token"}]
    assert (redirect.tag, redirect.text, redirect.attrib) == (
        "Redirect",
        "https://a.example.com/ivr?x=1&y=2",
        {"method": "POST"},
    )


def test_names_are_unique() -> None:
    texts = {with_stream(number(), ADDRESSES, "t") for _ in range(20)}
    assert len(texts) == 20


def test_one_track() -> None:
    response = ET.fromstring(with_stream(number(tracks="outbound"), ADDRESSES, "t"))
    assert response[0][0].attrib["track"] == "outbound_track"


def test_without_a_call_flow_the_line_stays_open() -> None:
    for text in (with_stream(number(), ADDRESSES, "t"), without_stream(number(), ADDRESSES)):
        *_, pause, redirect = ET.fromstring(text)
        assert pause.tag == "Pause"
        assert int(pause.attrib["length"]) > 60
        assert redirect.text == "https://b.example.com/twilio/resume"


def test_connect_redirects_when_the_stream_is_over() -> None:
    connect, redirect = ET.fromstring(
        with_stream(number("https://a.example.com/x", mode="connect"), ADDRESSES, "t")
    )
    assert connect.tag == "Connect"
    assert "track" not in connect[0].attrib
    assert redirect.text == "https://b.example.com/twilio/resume"


def test_without_stream_is_the_call_flow_alone() -> None:
    (redirect,) = ET.fromstring(without_stream(number("https://a.example.com/x"), ADDRESSES))
    assert redirect.text == "https://a.example.com/x"


def test_the_call_flow_is_asked_as_it_was_before() -> None:
    flow = CallFlow("https://user:word@a.example.com/ivr?x=1&y=%26%20<", "GET")
    (redirect,) = ET.fromstring(without_stream(number(flow), ADDRESSES))
    assert (redirect.text, redirect.attrib) == (flow.url, {"method": "GET"})


def test_a_document_s_verbs_come_after_the_stream() -> None:
    flow = CallFlow(
        twiml='<Response><Say voice="alice">It is <break time="1s"/> m&#252;de &amp; late</Say>\n<Hangup/></Response>'
    )
    start, say, hang_up = ET.fromstring(with_stream(number(flow), ADDRESSES, "v1.token"))
    assert (start.tag, hang_up.tag) == ("Start", "Hangup")
    assert ET.tostring(say, encoding="unicode").strip() == (
        '<Say voice="alice">It is <break time="1s" /> m\u00fcde &amp; late</Say>'
    )
    assert [verb.tag for verb in ET.fromstring(without_stream(number(flow), ADDRESSES))] == ["Say", "Hangup"]
    connect = ET.fromstring(with_stream(number(flow, mode="connect"), ADDRESSES, "v1.token"))
    assert [verb.tag for verb in connect] == ["Connect", "Redirect"]
