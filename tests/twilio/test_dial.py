from urllib.parse import parse_qsl, urlsplit

import pytest
from yarl import URL

from bridge.config import CallFlow
from bridge.errors import UsageError
from bridge.twilio.dial import LONGEST, Dial, call_flow

OURS = "https://bridge.example.com/asr"
THEN = "https://voice.example.com/hello?name=J%C3%B6rg&x=1+2"


def dial(from_: str = "+15550199", to: str = "+15550100", then: str = "") -> Dial:
    return Dial.of(from_, to, then, public_url=OURS)


@pytest.mark.parametrize(
    "to", ["+15550100", "sip:ann@example.com", "sips:ann@example.com:5061", "client:ann"]
)
def test_whom_it_may_call(to: str) -> None:
    assert dial(to=to) == Dial("+15550199", to, "")


@pytest.mark.parametrize(
    "from_",
    ["", "15550199", "+0555", "+1555019x", "+15550199\n", "+1" + "5" * 15, "sip:a@b", "client:ann"],
)
def test_a_number_that_is_none_cannot_call_and_is_not_repeated(from_: str) -> None:
    with pytest.raises(UsageError, match="from must be a telephone number") as error:
        dial(from_)
    assert not from_ or from_ not in str(error.value)


@pytest.mark.parametrize(
    "to", ["", "ann", "sip:", "client:", "+1 555", "tel:+15550100", "sip:a b", "+1\n", "sip:\x1b[0m"]
)
def test_whom_it_may_not_call(to: str) -> None:
    with pytest.raises(UsageError, match="to must be a telephone number"):
        dial(to=to)


@pytest.mark.parametrize(
    ("then", "words"),
    [
        ("ftp://example.com/x", "must be a URL"),
        ("javascript:alert(1)", "must be a URL"),
        ("voice.example.com", "must be a URL"),
        ("https://", "must be a URL"),
        ("https://example.com/#a", "without a fragment"),
        ("https://example.com/a b", "without spaces"),
        ("https://example.com/" + "a" * LONGEST, f"at most {LONGEST} characters"),
        (f"{OURS}/twilio/voice", "back to this bridge"),
        (f"{OURS}/twilio/voice?then=https://voice.example.com/", "back to this bridge"),
        ("https://bridge.example.com:443/asr/twilio/resume", "back to this bridge"),
    ],
)
def test_where_a_call_may_not_go_on(then: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dial(then=then)
    assert not call_flow({"then": then}, public_url=OURS)


def test_the_call_flow_travels_in_the_query() -> None:
    query = dict(parse_qsl(urlsplit(f"{OURS}/twilio/voice{dial(then=THEN).query}").query))
    assert query == {"then": THEN}
    assert call_flow(query, public_url=OURS) == CallFlow(THEN)


@pytest.mark.parametrize("then", [THEN, "https://u:p@h/a;b=c,(d)'e~*!$?a[]={}|^`\"<>&%26"])
def test_the_query_is_written_as_whoever_rewrites_queries_would(then: str) -> None:
    url = f"{OURS}/twilio/voice{dial(then=then).query}"
    assert str(URL(url)) == url
    assert URL(url).query == {"then": then}


def test_without_a_call_flow_there_is_no_query() -> None:
    assert dial().query == ""
    assert not call_flow({}, public_url=OURS)
    assert not call_flow({"then": ""}, public_url=OURS)
