"""What Twilio does with the calls of a number, what we have it do instead, and the way back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from bridge.config import CallFlow
from bridge.config.call_flow import leads_to

VOICE: Final = ("voice_url", "voice_method")
FALLBACK: Final = ("voice_fallback_url", "voice_fallback_method")
INSTEAD: Final = ("voice_application_sid", "trunk_sid")
STATUS: Final = ("status_callback", "status_callback_method")

GROUPS: Final = (VOICE, FALLBACK, INSTEAD, STATUS)
"""Fields of Twilio's resource, as its library names them; those of a group mean something together only."""

FIELDS: Final = tuple(field for group in GROUPS for field in group)

Handling = Mapping[str, str]
"""The value of each of these fields; empty: there is none."""

Standing = Literal["attached", "before", "changed", "over"]
"""How a number is found: as we set it, as it was before us, or as somebody else set it since; or it was detached."""


@dataclass(frozen=True, slots=True)
class Application:
    """What a number's calls do that are handled by an application: the number's own URLs count for nothing then."""

    voice_url: str
    voice_method: str
    status_callback: str
    status_callback_method: str


@dataclass(frozen=True, slots=True)
class Memory:
    """Of an attached number: the fields that we set, with what was there and what we put there."""

    before: dict[str, str]
    attached: dict[str, str]
    over: bool = False
    """It was detached. It is remembered all the same: somebody may be attaching it at that moment."""

    def encode(self) -> bytes:
        """As JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, text: bytes) -> Self | None:
        """What `encode` wrote; None for anything else."""
        try:
            memory = msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError:
            return None
        known = memory.before.keys() == memory.attached.keys() <= set(FIELDS) and "voice_url" in memory.before
        return memory if known else None

    def standing(self, now: Handling) -> Standing:
        """How the number is found."""
        if self.over and not self._is_ours(VOICE, now):
            return "over"
        if not self.changed(now):
            return "attached"
        return "changed" if changes(now, self.before) else "before"

    def changed(self, now: Handling) -> list[str]:
        """The fields that are not as we set them."""
        return list(changes(now, self.attached))

    def touched(self, now: Handling) -> list[str]:
        """What somebody changed while the number went on leading here: it cannot be told what they want of it."""
        if self.standing(now) != "changed" or not self._is_ours(VOICE, now):
            return []
        return [field for field in self.changed(now) if field not in INSTEAD]

    def without_us(self, now: Handling) -> Handling:
        """What would be there had we never been: what somebody else set since is theirs, and stays."""
        ours = {group for group in GROUPS if self._is_ours(group, now)}
        if VOICE not in ours:  # who sets a voice URL wants no application instead
            ours.discard(INSTEAD)
        found = {**now, **{field: self.before[field] for group in ours for field in group}}
        if not found["voice_url"]:  # and without one Twilio takes no fallback (error 21405)
            found["voice_fallback_url"] = ""
        return found

    def _is_ours(self, group: tuple[str, ...], now: Handling) -> bool:
        telling = group if group == INSTEAD else group[:1]  # a URL's method says nothing without it
        return all(now[field] == self.attached.get(field) for field in telling)


@dataclass(frozen=True, slots=True)
class Plan:
    """What attaching a number means."""

    flow: CallFlow
    """Where its calls go on when the stream has started."""
    memory: Memory


def plan(
    now: Handling, application: Application | None, voice_url: str, then: CallFlow | None = None
) -> Plan:
    """How to lead the calls of a number, of which we have set nothing so far, to `voice_url`.

    They go on to `then`, or else to what handles them now: the number's `application`, or its own voice URL.
    That is also its fallback, so that the bridge never takes the number down.
    """
    handler = then or _flow(
        *((application.voice_url, application.voice_method) if application else _voice(now))
    )
    attached = {"voice_url": voice_url, "voice_method": "POST", "voice_application_sid": "", "trunk_sid": ""}
    attached |= {field: now[field] for field in FALLBACK}
    if handler.url:
        attached |= {"voice_fallback_url": handler.url, "voice_fallback_method": handler.method}
    if application and application.status_callback:  # Twilio tells it no more, but the number's own
        attached |= {
            "status_callback": application.status_callback,
            "status_callback_method": application.status_callback_method,
        }
    return Plan(handler, Memory({field: now[field] for field in attached}, attached))


def handled_by(now: Handling) -> tuple[Literal["trunk", "application", "url", "nothing"], str]:
    """What Twilio does with the calls of a number, and where it is said: a SID, or a URL that may be shown."""
    if now["trunk_sid"]:
        return "trunk", now["trunk_sid"]
    if now["voice_application_sid"]:
        return "application", now["voice_application_sid"]
    return ("url", shown(now["voice_url"])) if now["voice_url"] else ("nothing", "")


def leads_here(now: Handling, public_url: str) -> bool:
    """Whether calls of the number come to the bridge already."""
    return handled_by(now)[0] == "url" and leads_to(now["voice_url"], public_url)


def changes(now: Handling, wanted: Handling) -> dict[str, str]:
    """The fields that must change, with their new values."""
    return {field: value for field, value in wanted.items() if now[field] != value}


def request(now: Handling, wanted: Handling) -> dict[str, str]:
    """The fields to set so that all of them are as wanted; none if they are.

    Also those that seem to be so already: what was read may be over, and a half of this and a half of what somebody
    else sets is nobody's. But not to say twice that there is no application or trunk: setting one deletes the other.
    """
    if not changes(now, wanted):
        return {}
    return {field: value for field, value in wanted.items() if value or now[field] or field not in INSTEAD}


def told(now: Handling, wanted: Handling) -> list[str]:
    """The same for people."""
    return [
        f"{field}: {shown(now[field]) or 'none'} -> {shown(value) or 'none'}"
        for field, value in changes(now, wanted).items()
    ]


def shown(value: str) -> str:
    """A field's value as far as it may be shown: a URL may hold secrets in its login and its query."""
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
    except ValueError:
        return "a URL"
    login, _, place = parts.netloc.rpartition("@")
    place = f"...@{place}" if login else place
    return urlunsplit((parts.scheme, place, parts.path, "..." if parts.query else "", ""))


def _voice(now: Handling) -> tuple[str, str]:
    return now["voice_url"], now["voice_method"]


def _flow(url: str, method: str) -> CallFlow:
    return CallFlow(url, "GET" if method == "GET" else "POST")
