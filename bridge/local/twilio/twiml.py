"""TwiML as Twilio reads it: the few verbs that decide what happens to a call's media."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit, urlunsplit

from bridge.local.twilio.address import is_loopback

LIMIT_BYTES: Final = 64 * 1024
"""Twilio reads no longer document (error 11750)."""

PARAMETER_LIMIT: Final = 500
"""Name and value of a `<Parameter>` together stay below this many characters."""

_HOLDING: Final = frozenset({"Dial", "Enqueue", "Record", "Gather", "Leave"})
"""Verbs that keep the call up until somebody hangs up, as far as this simulation goes."""

Track = Literal["inbound", "outbound"]

TRACKS: Final[dict[str, tuple[Track, ...]]] = {
    "inbound_track": ("inbound",),
    "outbound_track": ("outbound",),
    "both_tracks": ("inbound", "outbound"),
}


class TwimlError(Exception):
    """Twilio would have ended the call: the document, or a `<Stream>` in it, is not valid."""


@dataclass(frozen=True, slots=True)
class Stream:
    """`<Start><Stream>` (`bidirectional` false) or `<Connect><Stream>`."""

    url: str
    bidirectional: bool
    tracks: tuple[Track, ...]
    name: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    status_callback: str | None = None
    status_callback_method: str = "POST"


@dataclass(frozen=True, slots=True)
class Stop:
    """`<Stop><Stream name=.../></Stop>`: the stream of that name ends, the call goes on."""

    name: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing happens for `seconds`; the call stays up."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Redirect:
    """The next document comes from `url`."""

    url: str
    method: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A verb that keeps the call up on its own, such as `<Dial>`."""

    verb: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """The call ends here."""


Verb = Stream | Stop | Pause | Redirect | Hold | HangUp


def parse(text: str, base: str) -> list[Verb]:
    """The verbs of a document fetched from `base`, in order; those without weight here are left out.

    Raises TwimlError with the sentence that Twilio's debugger would show.
    """
    if len(text.encode()) > LIMIT_BYTES:
        raise TwimlError(f"TwiML response body too large (11750): more than {LIMIT_BYTES} bytes.")
    if "<!DOCTYPE" in text:
        raise TwimlError("Document parse failure (12100): a document type is not allowed in TwiML.")
    try:
        root = ET.fromstring(text)  # noqa: S314 - bounded above, and without DOCTYPE there are no entities
    except ET.ParseError as error:
        raise TwimlError(f"Document parse failure (12100): {error}.") from None
    if root.tag != "Response":
        raise TwimlError(f"Document parse failure (12100): the root is <{root.tag}>, not <Response>.")
    return [verb for element in root for verb in _verbs(element, base)]


def _verbs(element: ET.Element, base: str) -> list[Verb]:
    verbs: list[Verb] = []
    match element.tag:
        case "Start":
            verbs += [_stream(child, base, bidirectional=False) for child in element.iter("Stream")]
        case "Connect":
            # With another noun, such as <ConversationRelay>, the call stays up without media.
            noun = element.find("Stream")
            verbs.append(Hold("Connect") if noun is None else _stream(noun, base, bidirectional=True))
        case "Stop":
            verbs += [Stop(child.get("name", "")) for child in element.iter("Stream")]
        case "Pause":
            verbs.append(Pause(_seconds(element.get("length", "1"))))
        case "Redirect":
            url = urljoin(base, (element.text or "").strip())
            verbs.append(Redirect(url, element.get("method", "POST").upper()))
        case "Hangup" | "Reject":
            verbs.append(HangUp())
        case tag if tag in _HOLDING:
            verbs.append(Hold(tag))
    return verbs


def _stream(element: ET.Element, base: str, *, bidirectional: bool) -> Stream:
    track = element.get("track", "inbound_track")
    if track not in TRACKS or (bidirectional and track != "inbound_track"):
        where = "<Connect>" if bidirectional else "<Start>"
        raise TwimlError(f"Invalid track of <Stream> in {where}: {track!r}.")
    parameters = {child.get("name", ""): child.get("value", "") for child in element.iter("Parameter")}
    for name, value in parameters.items():
        if not name or len(name) + len(value) >= PARAMETER_LIMIT:
            raise TwimlError(
                f"Invalid <Parameter> {name!r}: no name, or {PARAMETER_LIMIT} characters and more."
            )
    callback = element.get("statusCallback")
    return Stream(
        url=media_url(element.get("url", ""), base),
        bidirectional=bidirectional,
        tracks=TRACKS[track],
        name=element.get("name", ""),
        parameters=parameters,
        status_callback=urljoin(base, callback) if callback else None,
        status_callback_method=element.get("statusCallbackMethod", "POST").upper(),
    )


def media_url(written: str, base: str) -> str:
    """The absolute wss:// URL; a query string is not supported and is dropped, as Twilio does.

    Raises TwimlError for what is none.
    """
    url = written if "://" in written else "ws" + urljoin(base, written).removeprefix("http")
    try:
        parts = urlsplit(url)
        valid = bool(written and parts.hostname and parts.port != 0)
    except ValueError:
        valid = False
    if not valid:
        raise TwimlError(f"Invalid url of <Stream>: {written!r}.")
    if parts.scheme != "wss" and not (parts.scheme == "ws" and is_loopback(url)):
        raise TwimlError(f"Invalid url of <Stream>: {written!r} is not wss://.")
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def _seconds(length: str) -> float:
    try:
        return max(0.0, float(length))
    except ValueError:
        raise TwimlError(f"Invalid length of <Pause>: {length!r}.") from None
