"""The kinds of value: what each takes and what it says otherwise."""

import base64
import sys
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter, ValidationError

from bridge import events
from bridge.config import values
from bridge.config.values import FromEnvironment


def taken(kind: Any, value: Any) -> Any:
    return TypeAdapter(kind).validate_python(value)


def refused(kind: Any, value: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        taken(kind, value)
    return caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (values.Whole, "8080", 8080),
        (values.Decimal, "0.5", 0.5),
        (values.Decimal, "3600", 3600.0),
        (values.Switch, "true", True),
        (values.Switch, "OFF", False),
        (values.Switch, "1", True),
        (values.Events, "call.ended,call.dtmf", ["call.ended", "call.dtmf"]),
        (values.Events, "", []),
        (values.Events, '["call.ended"]', ["call.ended"]),
        (values.Language, "es", "es"),
    ],
)
def test_text_from_the_environment_is_read_as_what_is_wanted(kind: Any, text: str, value: Any) -> None:
    taken_value = taken(kind, FromEnvironment(text))
    assert taken_value == value
    assert type(taken_value) is type(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (values.Whole, "8080"),
        (values.Whole, True),
        (values.Whole, 1.0),
        (values.Whole, FromEnvironment("1.0")),
        (values.Whole, FromEnvironment("9" * 5_000)),
        (values.Decimal, True),
        (values.Decimal, "1"),
        (values.Decimal, FromEnvironment("nan")),
        (values.Decimal, FromEnvironment("1e999")),
        (values.Switch, 1),
        (values.Switch, "true"),
        (values.Switch, FromEnvironment("maybe")),
        (values.Events, "call.ended"),
        (values.Events, ["call.exploded"]),
        (values.Networks, ["10.0.0.1/8"]),
        (values.Networks, [10]),
        (values.Networks, ["example.com"]),
    ],
)
def test_a_type_is_not_stretched(kind: Any, value: Any) -> None:
    refused(kind, value)


def test_the_event_types_are_those_of_the_events() -> None:
    tags = {kind.__struct_config__.tag for kind in get_args(events.Event)}
    assert set(get_args(values.EventType)) == tags


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/a/b?c=d",
        "http://127.0.0.1:0080/",
        "http://[::1]:8080/x",
        "https://xn--bcher-kva.example/",
        "",
    ],
)
def test_webhook_urls(url: str) -> None:
    assert taken(values.WebhookUrl, url) == url


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "/path",
        "https:",
        "https://",
        "https:///path",
        "ftp://example.com",
        "javascript:alert(1)",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com/#fragment",
        "https://example.com/#",
        "https://exa mple.com/",
        " https://example.com/",
        "https://example.com/\n",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://①②⑦.⓪.⓪.①/",
        "https://еxample.com/",  # noqa: RUF001 - the look-alike is the case
        "https://example.com\\@127.0.0.1/",
    ],
)
def test_urls_that_nothing_is_posted_to(url: str) -> None:
    assert "must be a URL" in refused(values.WebhookUrl, url)


def test_other_urls() -> None:
    assert taken(values.BaseUrl, "https://example.com/prefix/") == "https://example.com/prefix"
    assert "without a query" in refused(values.BaseUrl, "https://example.com/?a=b")
    assert values.call_flow_url("https://user:password@example.com/?a=b")  # Twilio logs in with it
    assert taken(values.WhisperUrl, "wss://example.com/websocket?a=b")
    assert "wss://" in refused(values.WhisperUrl, "https://example.com/websocket")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (values.Host, ["127.0.0.1", "::1", "localhost", "0.0.0.0"], ["", "a b", "http://x", "[::1]", "é"]),
        (values.Language, ["en", "auto", "pt-BR"], ["", "e", "en ", "english!", "en\n"]),
        (values.ModelId, ["", "abcd1234"], ["ABC", "a-b", "a.evil.example/", "a\n"]),
        (values.PhoneNumber, ["+15551234567", "sip:desk@example.com"], ["", "5551234567", "+0123", "+1 555", "+1555123456789012", "tel:+1", "+١٢٣"]),
        (values.Directory, ["", "/var/lib"], ["var", "~/x", "/a\x00"]),
    ],
)  # fmt: skip
def test_texts_of_a_form(kind: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert taken(kind, text) == text
    for text in bad:
        assert refused(kind, text)


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:///var/lib/x",
        "sqlite:////var/lib/x",
        "postgresql://u:p%40w@db1,db2:6432/d?sslmode=require",
        "postgres://u@h/d",
    ],
)
def test_where_the_outbox_may_be(text: str) -> None:
    assert taken(values.OutboxUrl, text).get_secret_value() == text
    assert text not in repr(taken(values.OutboxUrl, text))


@pytest.mark.parametrize(
    "text",
    ["", "/var/lib", "sqlite:", "sqlite://", "sqlite:///", "sqlite:////", "sqlite://x", "sqlite:///./x", "sqlite:///../x",
     "sqlite:///~/x", "sqlite:x", "mysql://x", "sqlite:///a\nb", "postgresql:", "postgresql:///d", "postgresql://u:p@h:x/d"],
)  # fmt: skip
def test_where_the_outbox_cannot_be(text: str) -> None:
    assert "must have the form" in refused(values.OutboxUrl, text)


def webhook_secret(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


def test_webhook_secrets() -> None:
    assert taken(values.WebhookSecrets, "") == ()
    assert taken(values.WebhookSecrets, []) == ()
    assert len(taken(values.WebhookSecrets, webhook_secret(24))) == 1
    assert len(taken(values.WebhookSecrets, [webhook_secret(24), webhook_secret(64)])) == 2
    assert (
        len(taken(values.WebhookSecrets, FromEnvironment(f"{webhook_secret(24)}, {webhook_secret(64)}"))) == 2
    )


@pytest.mark.parametrize(
    "secret",
    [
        webhook_secret(23),
        webhook_secret(32)[6:],
        "whsec_",
        "whsec_é",
        "whsec_!" * 9,
        1,
        [1],
    ],
)
def test_what_is_no_webhook_secret(secret: Any) -> None:
    refused(values.WebhookSecrets, secret)


@pytest.mark.parametrize("secret", ["a b", "a\n", "é", "a\x00"])
def test_what_no_header_can_carry(secret: str) -> None:
    assert "without spaces or line breaks" in refused(values.Token, secret)


def test_reasons_and_kinds_of_redaction() -> None:
    assert taken(values.Reasons, FromEnvironment("silent_audio,too_fast")) == ["silent_audio", "too_fast"]
    assert taken(values.Redactions, ["phone", "card"]) == ["phone", "card"]
    assert "'silent_audio'" in refused(values.Reasons, ["silence"])
    assert "'card'" in refused(values.Redactions, ["name"])
    assert refused(values.Redactions, ["card", "card"]).endswith("must not name anything twice")


def test_redaction_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stdnum", None)
    assert taken(values.Redactions, ["card", "phone"]) == ["card", "phone"]
    assert refused(values.Redactions, ["iban"]).endswith(
        "needs an extra for phone and iban: pip install 'whisper-bridge[redact]'"
    )


@pytest.mark.parametrize("text", ["[abc", "[" * 100_000])
def test_a_list_of_secrets_that_is_no_json_is_refused_in_words(text: str) -> None:
    expected = "must be a text or a list of them, as JSON or separated by commas"
    assert refused(values.Tokens, FromEnvironment(text)) == f"Value error, {expected}"
    assert expected in refused(values.WebhookSecrets, FromEnvironment(text))


def test_no_token_of_a_list_may_be_empty_as_anybody_could_sign_with_it() -> None:
    for given in (["new", ""], [""], FromEnvironment('["new", ""]')):
        assert "must have no empty text in its list" in refused(values.Tokens, given)
    assert taken(values.Tokens, "") == taken(values.Tokens, FromEnvironment(",")) == ()
