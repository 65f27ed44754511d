"""A call that the bridge is to place: as whom, to whom, and where it goes on once it is streamed.

The last travels in the query of our own voice URL: Twilio asks there when somebody picks up, and signs the query too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from yarl import URL

from bridge.config import CallFlow
from bridge.config.call_flow import leads_to
from bridge.config.values import call_flow_url
from bridge.errors import UsageError

THEN: Final = "then"
"""The parameter of the voice URL."""

LONGEST: Final = 1024
"""Characters of a call flow's URL. Written into a query it may be three times as long, and Twilio takes 4,000 or so."""

NUMBER: Final = re.compile(r"\+[1-9][0-9]{1,14}")
"""A telephone number by E.164."""

_PARTY: Final = re.compile(NUMBER.pattern + r"|sips?:[!-~]{1,250}|client:[!-~]{1,120}")


@dataclass(frozen=True, slots=True)
class Dial:
    """Made by `of`. `then` is a URL, or empty: then the call flow of the number that calls holds."""

    from_: str
    to: str
    then: str

    @classmethod
    def of(cls, from_: str, to: str, then: str, *, public_url: str) -> Self:
        """What somebody asks for. Raises `UsageError`, which names no number."""
        if not NUMBER.fullmatch(from_):
            raise UsageError("from must be a telephone number of your Twilio account, such as +15551234567.")
        if not _PARTY.fullmatch(to):
            raise UsageError("to must be a telephone number such as +15551234567, or sip:... or client:... .")
        if problem := _problem(then, public_url):
            raise UsageError(f"then {problem}.")
        return cls(from_, to, then)

    @property
    def query(self) -> str:
        """What the voice URL gets."""
        return query(self.then)


def query(then: str) -> str:
    """What names a call flow to `/twilio/voice` and `/twilio/resume`; empty without one.

    Nothing is escaped that need not be: a proxy that undoes that would break the signature.
    """
    return f"?{URL.build(query={THEN: then}).raw_query_string}" if then else ""


def call_flow(query: Mapping[str, str], *, public_url: str) -> CallFlow:
    """The call flow that a request to the voice URL names; none if it names none, or one that cannot be used.

    Whoever could write it there may as well have Twilio ask for it directly: the request is signed, query and all,
    and where nothing is verified the bridge is reached from this machine alone.
    """
    then = query.get(THEN, "")
    return CallFlow() if _problem(then, public_url) else CallFlow(then)


def _problem(then: str, public_url: str) -> str:
    if len(then) > LONGEST:
        return f"must be a URL of at most {LONGEST} characters"
    try:
        call_flow_url(then)
    except ValueError as error:
        return str(error)
    return (
        "leads back to this bridge: the call would go round in circles" if leads_to(then, public_url) else ""
    )
