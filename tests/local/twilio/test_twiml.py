import pytest

from bridge.local.twilio.twiml import HangUp, Hold, Pause, Redirect, Stop, Stream, TwimlError, Verb, parse

BASE = "https://bridge.example.com/twilio/voice"


def start(attributes: str, inside: str = "") -> str:
    return f"<Response><Start><Stream {attributes}>{inside}</Stream></Start></Response>"


@pytest.mark.parametrize(
    ("twiml", "verbs"),
    [
        ("<Response/>", []),
        ('<?xml version="1.0" encoding="UTF-8"?><Response><!-- nothing --></Response>', []),
        ("<Response><Say>Hello.</Say><Play>a.mp3</Play><Unknown/></Response>", []),
        ("<Response><Pause/></Response>", [Pause(1)]),
        ('<Response><Pause length="3600"/></Response>', [Pause(3600)]),
        ('<Response><Pause length="-1"/><Hangup/></Response>', [Pause(0), HangUp()]),
        ("<Response><Reject/></Response>", [HangUp()]),
        ("<Response><Dial>+15550123</Dial></Response>", [Hold("Dial")]),
        (
            "<Response><Connect><ConversationRelay url='wss://a.example/'/></Connect></Response>",
            [Hold("Connect")],
        ),
        (
            "<Response><Redirect> https://voice.example.com/existing?a=1 </Redirect></Response>",
            [Redirect("https://voice.example.com/existing?a=1", "POST")],
        ),
        (
            '<Response><Redirect method="get">/twilio/resume</Redirect></Response>',
            [Redirect("https://bridge.example.com/twilio/resume", "GET")],
        ),
        (
            start('url="wss://bridge.example.com/media"'),
            [Stream("wss://bridge.example.com/media", bidirectional=False, tracks=("inbound",))],
        ),
        (
            start('url="wss://bridge.example.com/media?token=k9#x" track="outbound_track"'),
            [Stream("wss://bridge.example.com/media", bidirectional=False, tracks=("outbound",))],
        ),
        (
            start('url="/media"'),
            [Stream("wss://bridge.example.com/media", bidirectional=False, tracks=("inbound",))],
        ),
        (
            start('url="ws://127.0.0.1:8080/media"'),
            [Stream("ws://127.0.0.1:8080/media", bidirectional=False, tracks=("inbound",))],
        ),
        (
            start(
                'name="asr-1" url="wss://bridge.example.com/media" track="both_tracks" statusCallback="/status" '
                'statusCallbackMethod="get"',
                '<Parameter name="tenant" value="acme"/><Parameter name="token" value="k9&amp;"/>',
            ),
            [
                Stream(
                    "wss://bridge.example.com/media",
                    bidirectional=False,
                    tracks=("inbound", "outbound"),
                    name="asr-1",
                    parameters={"tenant": "acme", "token": "k9&"},
                    status_callback="https://bridge.example.com/status",
                    status_callback_method="GET",
                )
            ],
        ),
        ('<Response><Stop><Stream name="asr-1"/></Stop></Response>', [Stop("asr-1")]),
        (
            """<Response><Connect><Stream url="wss://bridge.example.com/media"/></Connect>
            <Redirect>resume</Redirect></Response>""",
            [
                Stream("wss://bridge.example.com/media", bidirectional=True, tracks=("inbound",)),
                Redirect("https://bridge.example.com/twilio/resume", "POST"),
            ],
        ),
    ],
)
def test_a_document_is_read_as_twilio_reads_it(twiml: str, verbs: list[Verb]) -> None:
    assert parse(twiml, BASE) == verbs


@pytest.mark.parametrize(
    ("twiml", "sentence"),
    [
        ("", "12100"),
        ("not xml", "12100"),
        ("<Response>", "12100"),
        ("<Answer/>", "the root is <Answer>"),
        ('<!DOCTYPE r [<!ENTITY a "b">]><Response>&a;</Response>', "document type"),
        ("<Response>" + " " * 65536 + "</Response>", "11750"),
        ('<Response><Pause length="long"/></Response>', "length of <Pause>"),
        (start(""), "Invalid url of <Stream>: ''"),
        (start('url="https://bridge.example.com/media"'), "is not wss://"),
        (start('url="ws://bridge.example.com/media"'), "is not wss://"),
        (start('url="wss:///media"'), "Invalid url"),
        (start('url="wss://[::1/media"'), "Invalid url"),
        (start('url="wss://bridge.example.com/media" track="all"'), "track of <Stream> in <Start>: 'all'"),
        (
            "<Response><Connect><Stream url='wss://b.example/m' track='both_tracks'/></Connect></Response>",
            "track of <Stream> in <Connect>: 'both_tracks'",
        ),
        (
            start('url="wss://b.example/m"', f'<Parameter name="a" value="{"b" * 499}"/>'),
            "Invalid <Parameter> 'a'",
        ),
        (start('url="wss://b.example/m"', '<Parameter value="b"/>'), "Invalid <Parameter> ''"),
    ],
)
def test_what_twilio_would_refuse(twiml: str, sentence: str) -> None:
    with pytest.raises(TwimlError, match=sentence):
        parse(twiml, BASE)
