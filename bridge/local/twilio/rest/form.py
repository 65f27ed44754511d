"""What a request may ask for: which parameters there are, and what each may be."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from multidict import MultiDict, MultiMapping

from bridge.local.twilio.rest.refusal import INVALID, Refused

URL_CHARACTERS: Final = 4000
"""Twilio takes no longer URL: https://www.twilio.com/docs/api/errors/21609"""

PORTS: Final = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter: what its value must be, and Twilio's code for one that is not."""

    valid: Callable[[str], object]
    code: int = INVALID
    many: bool = False
    """Whether it may come more than once."""


Fields = Mapping[str, Field]


def read(asked: MultiMapping[str], fields: Fields) -> dict[str, str]:
    """The parameters, those of `many` with a space between their values. Raises Refused for what is not allowed."""
    values: dict[str, str] = {}
    for name in asked:
        field = fields.get(name)
        if field is None:
            raise Refused(f"There is no parameter {name!r} here.")
        given = asked.getall(name)
        if len(given) > 1 and not field.many:
            raise Refused(f"{name} came {len(given)} times.")
        for value in given:
            if not field.valid(value):
                raise Refused(f"{name} {value!r} is not valid.", field.code)
        values[name] = " ".join(given)
    return values


async def posted(request: web.Request, fields: Fields) -> dict[str, str]:
    """The parameters of a form, which come in the body and not in the URL. Raises Refused."""
    read(request.query, {})
    if request.can_read_body and request.content_type != "application/x-www-form-urlencoded":
        raise Refused(f"Parameters come as a form, not as {request.content_type}.")
    form = await request.post()
    return read(MultiDict((name, str(value)) for name, value in form.items()), fields)


def text(most: int, code: int = INVALID) -> Field:
    """At most so many characters."""
    return Field(lambda value: len(value) <= most, code)


def one_of(*choices: str, code: int = INVALID, many: bool = False) -> Field:
    """One of a few words."""
    return Field(lambda value: value in choices, code, many)


def boolean() -> Field:
    """As the library writes one."""
    return one_of("true", "false")


def integer(least: int, most: int) -> Field:
    """A number in decimal digits."""
    return Field(lambda value: value.isascii() and value.isdecimal() and least <= int(value) <= most)


def matching(pattern: str, code: int = INVALID) -> Field:
    """What fits a pattern as a whole, or nothing at all."""
    return Field(lambda value: not value or re.fullmatch(pattern, value), code)


def sid(prefix: str, code: int = INVALID) -> Field:
    """An identifier of that kind, or nothing at all."""
    return matching(prefix + "[0-9a-f]{32}", code)


def url(code: int = INVALID) -> Field:
    """An absolute http or https URL, or nothing at all."""
    return Field(lambda value: not value or is_web(value), code)


def method() -> Field:
    """An HTTP method that Twilio uses (21403)."""
    return one_of("GET", "POST", code=21403)


def is_web(value: str) -> bool:
    """Whether that is a URL that Twilio would ask."""
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port in {None, *PORTS}
    except ValueError:
        return False
    return usable and len(value) <= URL_CHARACTERS and not re.search(r"\s", value)
