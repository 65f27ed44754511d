"""A number's own call flow: where its calls go on when their stream has started."""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from pydantic import BeforeValidator, ValidationInfo

from bridge.config.values import call_flow_url

MAX_BYTES: Final = 60 * 1024
"""Of a TwiML file. Twilio reads 64 KiB in all (error 11750), and the stream comes before the file's verbs."""

DIRECTORY: Final = "directory"
"""In the context of a validation: what relative names of files start from, a `Path`."""

DEEPEST: Final = 20
"""Verbs within verbs; Twilio's need half of it. What writes them again calls itself for each."""

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class CallFlow:
    """A URL that Twilio asks, or the TwiML itself; neither: the line is kept open."""

    url: str = ""
    method: Literal["POST", "GET"] = "POST"
    twiml: str = ""
    """A `<Response>` with the verbs."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.url or self.twiml)


def leads_to(url: str, public_url: str) -> bool:
    """Whether Twilio would ask the bridge at `public_url` for `url`, so that a call would go round in circles."""
    try:
        asked, ours = urlsplit(url), urlsplit(public_url)
        origins = {
            (each.scheme, each.hostname, each.port or _PORTS.get(each.scheme)) for each in (asked, ours)
        }
    except ValueError:
        return False
    return bool(ours.hostname) and len(origins) == 1 and asked.path.startswith(f"{ours.path}/twilio/")


def _then(value: Any, info: ValidationInfo) -> CallFlow:
    if isinstance(value, CallFlow):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a text in quotes")  # noqa: TRY004 - pydantic collects these
    if value.endswith(".xml") and "://" not in value and value.isprintable():
        return CallFlow(twiml=_document(Path((info.context or {}).get(DIRECTORY, "")) / value))
    try:
        return CallFlow(call_flow_url(value))
    except ValueError as error:
        raise ValueError(f"{error}, or the name of a TwiML file that ends in .xml") from None


def _document(path: Path) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("must name a TwiML file: there is something else of that name")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"must name a TwiML file, which cannot be read: {error.strerror}") from None
    too_long = f"must name a TwiML file, of {MAX_BYTES} bytes at most"
    if len(content) > MAX_BYTES:
        raise ValueError(too_long)
    parser = ET.XMLParser(target=_Verbs())  # noqa: S314 - the operator's own file, and no entities
    try:
        parser.feed(content)
        response = parser.close()
    except (ET.ParseError, LookupError, UnicodeError) as error:  # the latter of an encoding that is none
        place = f" line {error.position[0]}" if isinstance(error, ET.ParseError) else ""
        raise ValueError(f"must name a TwiML file, which is not valid XML{place}") from None
    if response.tag != "Response":
        raise ValueError("must name a TwiML file, whose root is <Response>")
    text = ET.tostring(response, encoding="unicode")
    if len(text.encode()) > MAX_BYTES:  # as it is written again, > is &gt;
        raise ValueError(too_long)
    return text


class _Verbs(ET.TreeBuilder):
    """Takes what TwiML may have. A DOCTYPE may declare entities without end, and TwiML has none."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def start(self, tag: str, attrs: dict[str, str]) -> ET.Element:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"must name a TwiML file, with verbs at most {DEEPEST} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> ET.Element:
        self._depth -= 1
        return super().end(tag)

    def doctype(self, *_: str | None) -> NoReturn:
        raise ValueError("must name a TwiML file, without a DOCTYPE")


Then = Annotated[CallFlow, BeforeValidator(_then)]
