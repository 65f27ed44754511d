"""The way there and the way back, for every number that Twilio may have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.config import CallFlow
from bridge.numbers.handling import (
    FIELDS,
    Application,
    Handling,
    Memory,
    changes,
    handled_by,
    leads_here,
    plan,
    request,
    shown,
    told,
)

PUBLIC_URL = "https://b.example.com"
OURS = f"{PUBLIC_URL}/twilio/voice"
URLS = st.sampled_from(["", "https://a.example.com/x?y=1", "https://c.example.com"])
METHODS = st.sampled_from(["GET", "POST"])
APPLICATIONS = st.builds(Application, URLS, METHODS, URLS, METHODS)


@st.composite
def handlings(draw: st.DrawFn) -> dict[str, str]:
    """As Twilio lets a number be: no fallback without a voice URL, no trunk beside an application."""
    found = {field: draw(METHODS if field.endswith("method") else URLS) for field in FIELDS}
    instead = draw(st.sampled_from([("", ""), ("AP1", ""), ("", "TK1")]))
    found |= dict(zip(("voice_application_sid", "trunk_sid"), instead, strict=True))
    return found if found["voice_url"] else found | {"voice_fallback_url": ""}


@given(handlings(), APPLICATIONS, st.sampled_from([None, CallFlow("https://t.example.com")]))
def test_there_and_back(before: dict[str, str], application: Application, then: CallFlow | None) -> None:
    planned = plan(before, application if before["voice_application_sid"] else None, OURS, then)
    memory = planned.memory
    attached = before | changes(before, memory.attached)
    assert memory.standing(before) == "before"
    assert memory.standing(attached) == "attached"
    assert attached["voice_url"] == OURS
    assert handled_by(attached) == ("url", OURS)
    assert leads_here(attached, PUBLIC_URL)
    if planned.flow.url:
        assert attached["voice_fallback_url"] == planned.flow.url
        assert attached["voice_fallback_method"] == planned.flow.method
    assert attached | changes(attached, memory.before) == before
    assert memory.without_us(attached) == before == memory.without_us(before)
    assert Memory.decode(memory.encode()) == memory


@given(handlings(), handlings(), st.sets(st.sampled_from(FIELDS)))
def test_what_is_theirs_stays_and_nothing_of_ours_does(
    before: dict[str, str], theirs: Handling, fields: set[str]
) -> None:
    memory = plan(before, None, OURS).memory
    attached = before | changes(before, memory.attached)
    now = attached | {field: theirs[field] for field in fields}
    found = memory.without_us(now)
    assert found["voice_url"] != OURS
    for field in ("voice_url", "voice_application_sid", "trunk_sid", "status_callback"):
        if now[field] != attached[field]:
            assert found[field] == now[field]
    assert found["voice_url"] or not found["voice_fallback_url"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'{"before": {}}',
        b'{"before": {"voice_url": "a"}, "attached": {}}',
        b'{"before": {"colour": "a"}, "attached": {"colour": "b"}}',
        b'{"before": {"voice_url": 1}, "attached": {"voice_url": "b"}}',
        b"\xff",
    ],
)
def test_what_is_no_memory(text: bytes) -> None:
    assert Memory.decode(text) is None


def test_a_request_is_whole_or_nothing() -> None:
    now = dict.fromkeys(FIELDS, "") | {"voice_url": OURS}
    wanted = {"voice_url": OURS, "voice_method": "GET", "voice_application_sid": "", "trunk_sid": ""}
    assert request(now | {"voice_method": "GET"}, wanted) == {}
    assert request(now, wanted) == {"voice_url": OURS, "voice_method": "GET"}
    assert request(now | {"trunk_sid": "TK1"}, wanted) == {
        "voice_url": OURS,
        "voice_method": "GET",
        "trunk_sid": "",
    }
    assert request(now, wanted | {"voice_application_sid": "AP1"})["voice_application_sid"] == "AP1"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", ""),
        ("POST", "POST"),
        ("AP123", "AP123"),
        ("https://a.example.com/x", "https://a.example.com/x"),
        ("https://user:word@a.example.com:8443/x?key=7#z", "https://...@a.example.com:8443/x?..."),
        ("https://[bad/x?key=7", "a URL"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, text: str) -> None:
    assert shown(url) == text


def test_changes_are_told_with_what_was_there() -> None:
    now = dict.fromkeys(FIELDS, "")
    assert told(now, {"voice_url": OURS, "voice_method": ""}) == [f"voice_url: none -> {OURS}"]
    assert told(now | {"trunk_sid": "TK1"}, {"trunk_sid": ""}) == ["trunk_sid: TK1 -> none"]
