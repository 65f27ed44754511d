import pytest
from multidict import MultiDict

from bridge.local.twilio.rest.form import (
    boolean,
    integer,
    is_web,
    matching,
    method,
    one_of,
    read,
    sid,
    text,
    url,
)
from bridge.local.twilio.rest.refusal import Refused

FIELDS = {
    "Url": url(21205),
    "Method": method(),
    "Event": one_of("a", "b", many=True),
    "Flag": boolean(),
    "Count": integer(1, 9),
    "Sid": sid("CA"),
    "Name": text(3),
    "Digits": matching("[0-9]+"),
}


def test_what_is_right_comes_through() -> None:
    asked = MultiDict(
        [
            ("Url", "https://a.example/x?y=z"),
            ("Method", "GET"),
            ("Event", "a"),
            ("Event", "b"),
            ("Flag", "true"),
            ("Count", "9"),
            ("Sid", "CA" + "0" * 32),
            ("Name", ""),
            ("Digits", ""),
        ]
    )
    assert read(asked, FIELDS)["Event"] == "a b"
    assert read(asked, FIELDS).keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("url", "https://a.example", 20001),
        ("Url", "a.example", 21205),
        ("Method", "get", 21403),
        ("Event", "c", 20001),
        ("Flag", "True", 20001),
        ("Count", "10", 20001),
        ("Count", "٣", 20001),
        ("Count", "", 20001),
        ("Sid", "CA1", 20001),
        ("Name", "long", 20001),
        ("Digits", "1a", 20001),
    ],
)
def test_what_is_wrong_is_refused(name: str, value: str, code: int) -> None:
    with pytest.raises(Refused, match=name) as refused:
        read(MultiDict({name: value}), FIELDS)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_a_parameter_comes_once() -> None:
    with pytest.raises(Refused, match="came 2 times"):
        read(MultiDict([("Name", "a"), ("Name", "b")]), FIELDS)


@pytest.mark.parametrize(
    "value", ["", "http:///x", "http://[::1/", "https://a.example:x/", "wss://a.example/"]
)
def test_no_url(value: str) -> None:
    assert not is_web(value)
