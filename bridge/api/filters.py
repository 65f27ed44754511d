"""Which deliveries an operator means: texts from a query, a JSON body or a command line, as a `Selection`."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

from bridge.errors import UsageError
from bridge.outbox.outbox import Selection, State
from bridge.twilio.media import CALL_SID

FILTERS: Final = ("call_sid", "endpoint", "state", "event_id", "since", "until")
"""Their names. `state` and `event_id` may have several values: one of them must be true."""

MOST_IDS: Final = 1000
"""Event ids in one filter. A JSON body that is not too large for the server has room for 1,800."""

LONGEST: Final = 2048
"""Characters of one value; a webhook URL is the longest there is."""

STATES: Final[tuple[State, ...]] = get_args(State)

_SEVERAL: Final = {"state", "event_id"}
_VISIBLE: Final = re.compile(r"[!-~]+")
_RELATIVE: Final = re.compile(r"([0-9]{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Given = Mapping[str, Sequence[str]]
"""The values of each name, as somebody wrote them."""


def texts(body: Mapping[str, Any]) -> Given:
    """The filters of a JSON object: each a text or a list of texts. Raises `UsageError`."""
    given = {}
    for name, value in body.items():
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise UsageError(f"{_short(name)} must be a text or a list of texts.")
        given[name] = values
    return given


def selection(given: Given, now: float) -> Selection:
    """What the filters select; `now` is seconds since 1970. Raises `UsageError` with one sentence."""
    for name, values in given.items():
        if name not in FILTERS:
            raise UsageError(f"{_short(name)} is not a filter: there are {', '.join(FILTERS)}.")
        most = MOST_IDS if name in _SEVERAL else 1
        if not 1 <= len(values) <= most:  # an empty list may stand for nothing, not for everything
            raise UsageError(
                f"{name} has {len(values)} values: expected {'1' if most == 1 else f'1 to {most}'}."
            )
    since, until = (_moment(name, given, now) for name in ("since", "until"))
    if since is not None and until is not None and since >= until:
        raise UsageError("until must be later than since.")
    return Selection(
        event_ids=tuple(_matching("event_id", value, _VISIBLE) for value in given.get("event_id", ())),
        call_sid="".join(call_sid(value) for value in given.get("call_sid", ())),
        endpoint="".join(_matching("endpoint", value, _VISIBLE) for value in given.get("endpoint", ())),
        states=frozenset(_state(value) for value in given.get("state", ())),
        since=since,
        until=until,
    )


def call_sid(text: str) -> str:
    """The id of a call, if it may be one. Raises `UsageError`."""
    return _matching("call_sid", text, CALL_SID, ": a call's id begins with CA")


def whole(name: str, text: str, least: int, most: int) -> int:
    """A number between `least` and `most`. Raises `UsageError`."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise UsageError(f"{name} {_short(text)} cannot be used: expected a number from {least} to {most}.")
    return int(text)


def _state(text: str) -> State:
    for state in STATES:
        if text == state:
            return state
    raise UsageError(f"state {_short(text)} cannot be used: there are {', '.join(STATES)}.")


def _moment(name: str, given: Given, now: float) -> float | None:
    """A time as RFC 3339 has it, or one so long ago: 30m, 2h, 7d."""
    for text in given.get(name, ()):
        if ago := _RELATIVE.fullmatch(text):
            return now - int(ago[1]) * _UNITS[ago[2]]
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is not None:
                return moment.timestamp()
        except (ValueError, OverflowError):
            pass
        raise UsageError(
            f"{name} {_short(text)} cannot be used: expected a time such as 2026-08-22T10:00:00Z, or 30m, 2h, 7d."
        )
    return None


def _matching(name: str, text: str, pattern: re.Pattern[str], expected: str = "") -> str:
    if len(text) > LONGEST or not pattern.fullmatch(text):
        raise UsageError(f"{name} {_short(text)} cannot be used{expected}.")
    return text


def _short(text: str) -> str:
    """Enough of what somebody wrote to find it again."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")
