"""The kinds of value a key may hold, and the sentence that says so when it does not.

A validator raises `ValueError("must be ...")`: never with the value in it, which may be a secret.
"""

import ipaddress
import json
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, Strict

from bridge.errors import ConfigError
from bridge.outbox.postgresql.address import Address
from bridge.transcript.redact import NEEDS, Kind, missing
from bridge.transcript.suspect import Reason
from bridge.webhook.secret import HOW, check_secret

_SWITCHES = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


class FromEnvironment(str):
    """A text that an environment variable gave: it may stand for a number, a switch or a list."""

    __slots__ = ()


def _parsed(parse: Callable[[str], Any]) -> BeforeValidator:
    """Read environment text with `parse`; leave what TOML has typed already as it is."""

    def validate(value: Any) -> Any:
        if not isinstance(value, FromEnvironment):
            return value
        try:
            return parse(value)
        except (ValueError, KeyError, RecursionError):
            return str(value)  # the strict type behind this one says what was expected

    return BeforeValidator(validate)


def _list(text: str) -> Any:
    """JSON if it looks like it, else a comma-separated list."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    return [FromEnvironment(item.strip()) for item in text.split(",") if item.strip()]


FROM_LIST = _parsed(_list)
"""For a list that the environment may give as JSON or separated by commas."""

Whole = Annotated[int, Strict(), _parsed(int)]
Decimal = Annotated[float, Strict(), _parsed(float), Field(allow_inf_nan=False)]
Switch = Annotated[bool, Strict(), _parsed(lambda text: _SWITCHES[text.strip().lower()])]


def _matching(pattern: str, expected: str) -> AfterValidator:
    """A text that is as `pattern` wants it, or a `ValueError` that says what was `expected`."""
    compiled = re.compile(pattern)

    def validate(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {expected}")
        return text

    return AfterValidator(validate)


Host = Annotated[
    str, _matching(r"[A-Za-z0-9._:-]+", "an address or a host name to listen on, such as 127.0.0.1")
]
Language = Annotated[
    str, _matching(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*", "a language code such as en, or auto to detect it")
]
ModelId = Annotated[str, _matching(r"[a-z0-9]*", "a Baseten model id: lower-case letters and digits")]
PhoneNumber = Annotated[
    str,
    _matching(r"\+[1-9][0-9]{1,14}|sips?:[^\s@]+(@[^\s@]+)?", "a number such as +15551234567, or a sip: URI"),
]  # E.164: at most 15 digits


def _url(*schemes: str, query: bool = True, login: bool = False) -> AfterValidator:
    """A URL with one of `schemes` and a host, or nothing. A trailing slash stays.

    `query` allows a query, `login` allows `user:password@`.
    """
    expected = f"must be a URL such as {schemes[-1]}://example.com/path"

    def validate(text: str) -> str:
        if not text:
            return text
        if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
            raise ValueError(f"{expected}, in ASCII and without spaces")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(f"{expected}, with a port below 65536 if any") from None
        if parts.scheme not in schemes or not parts.hostname or port == 0 or "%" in parts.hostname:
            raise ValueError(expected)
        if "#" in text:
            raise ValueError("must be a URL without a fragment (#...)")
        if "?" in text and not query:
            raise ValueError("must be a URL without a query (?...)")
        if "@" in parts.netloc and not login:
            raise ValueError("must be a URL without a user name or password")
        return text

    return AfterValidator(validate)


_CALL_FLOW = _url("http", "https", login=True)


def call_flow_url(text: str) -> str:
    """A URL that Twilio may ask for TwiML, or nothing. Raises `ValueError`: "must be ..."."""
    checked: str = _CALL_FLOW.func(text)  # type: ignore[call-arg]  # pydantic's type allows functions of more, too
    return checked


_WITHOUT_SLASH = AfterValidator(lambda text: text.rstrip("/"))

BaseUrl = Annotated[str, _url("http", "https", query=False), _WITHOUT_SLASH]
WebhookUrl = Annotated[str, _url("http", "https")]
WhisperUrl = Annotated[str, _url("ws", "wss")]


def _outbox_url(secret: SecretStr) -> SecretStr:
    """A secret as a whole: it may hold a password."""
    text = secret.get_secret_value()
    if text.startswith(("postgresql:", "postgres:")):
        Address.parse(text)
        return secret
    path = text.removeprefix("sqlite://")
    relative = not path.startswith("/") or any(part in {".", "..", "~"} for part in path.split("/"))
    if path == text or relative or not path.isprintable() or not path.strip("/"):
        raise ValueError(
            "must have the form sqlite:///var/lib/whisper-bridge (three slashes: an absolute directory)"
            " or postgresql://user:password@host/database"
        )
    return secret


def _absolute(text: str) -> str:
    if text and (not text.startswith("/") or not text.isprintable()):
        raise ValueError("must be an absolute directory, or empty")
    return text


OutboxUrl = Annotated[SecretStr, AfterValidator(_outbox_url)]
Directory = Annotated[str, AfterValidator(_absolute)]


def _token(secret: SecretStr) -> SecretStr:
    """A secret travels in an HTTP header or keys an HMAC: a stray line break would only show much later."""
    text = secret.get_secret_value()
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be a secret of printable ASCII characters, without spaces or line breaks")
    return secret


def _webhook_secret(secret: SecretStr) -> SecretStr:
    try:
        check_secret(secret.get_secret_value())
    except ConfigError:
        raise ValueError(f"must be whsec_ followed by the base64 of 24 random bytes or more: {HOW}") from None
    return secret


def _secrets(value: Any) -> Any:
    """One secret or a list of them, while rotating."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    try:
        return tuple(_list(value)) if isinstance(value, FromEnvironment) else ((value,) if value else ())
    except (ValueError, RecursionError):
        raise ValueError("must be a text or a list of them, as JSON or separated by commas") from None


def _not_empty(tokens: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """Anybody could sign with a token that is empty, as one is whose environment variable is."""
    if not all(token.get_secret_value() for token in tokens):
        raise ValueError("must have no empty text in its list")
    return tokens


Token = Annotated[SecretStr, AfterValidator(_token)]
Tokens = Annotated[tuple[Token, ...], BeforeValidator(_secrets), AfterValidator(_not_empty)]
WebhookSecret = Annotated[SecretStr, AfterValidator(_webhook_secret)]
WebhookSecrets = Annotated[tuple[WebhookSecret, ...], BeforeValidator(_secrets)]


def _network(value: Any) -> Any:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    try:
        return ipaddress.ip_network(str(value) if isinstance(value, str) else "")
    except ValueError:
        raise ValueError("must be a network such as 10.0.0.0/8 or 127.0.0.1/32") from None


Network = Annotated[ipaddress.IPv4Network | ipaddress.IPv6Network, BeforeValidator(_network)]

EventType = Literal[
    "call.started",
    "transcript.partial",
    "transcript.final",
    "transcript.gap",
    "transcript.late",
    "call.dtmf",
    "call.ended",
]


def _once(items: list[Any]) -> list[Any]:
    if len(set(items)) != len(items):
        raise ValueError("must not name anything twice")
    return items


Events = Annotated[list[EventType], FROM_LIST, AfterValidator(_once)]
Networks = Annotated[list[Network], FROM_LIST]
Reasons = Annotated[list[Reason], FROM_LIST, AfterValidator(_once)]


def _installed(kinds: list[Kind]) -> list[Kind]:
    if missing(kinds):
        raise ValueError(f"needs an extra for {' and '.join(NEEDS)}: pip install 'whisper-bridge[redact]'")
    return kinds


Redactions = Annotated[list[Kind], FROM_LIST, AfterValidator(_once), AfterValidator(_installed)]
