"""Attaching telephone numbers to the bridge, and detaching them: every step can be repeated, or undone.

What a number did is remembered before it is changed, and not forgotten: a number that is detached is marked so.
Thus whoever else is at work on it, or was killed, Twilio never leads a number to us of which nothing is known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from bridge.config import CallFlow, Config, is_loopback
from bridge.config.call_flow import leads_to
from bridge.config.values import call_flow_url
from bridge.errors import BridgeError, ConfigError, UsageError
from bridge.numbers.account import Account, Number
from bridge.numbers.handling import (
    Handling,
    Memory,
    Plan,
    Standing,
    changes,
    handled_by,
    leads_here,
    plan,
    request,
    shown,
    told,
)
from bridge.outbox.attachments import Attachment, Attachments
from bridge.outbox.outbox import OutboxDown
from bridge.twilio.addresses import Addresses
from bridge.twilio.dial import NUMBER
from bridge.twilio.rest import TwilioRest

_T = TypeVar("_T")

OUTBOX_S: Final = 10.0
"""How long the outbox may take for one number."""

TRUNKED: Final = (
    "its calls go to the trunk {trunk}, and Twilio asks no voice URL for them: to attach it, take it off the "
    "trunk first (Twilio console, Elastic SIP Trunking)"
)

CROSSED: Final = "somebody changed it at the same moment: see `whisper-bridge numbers list`, and try again"


Attached = Literal["yes", "no", "changed", "half", "by hand"]
"""`half`: an attach or a detach was interrupted. `by hand`: it leads here, but what it did before is not known."""


STANDINGS: Final[Mapping[Standing, Attached]] = {"attached": "yes", "before": "half", "changed": "changed"}


@dataclass(frozen=True, slots=True)
class Listed:
    """A number as an operator is shown it; of URLs without what may be secret."""

    number: str
    sid: str
    handled_by: Literal["url", "application", "trunk", "nothing", "gone"]
    """`gone`: it is attached, but the account does not have it any more."""
    where: str
    """The URL or the SID of that."""
    attached: Attached
    changed: list[str]
    """The fields that somebody changed since."""
    then: str
    """Where its calls go on, if it is attached."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one number."""

    number: str
    did: str = ""
    """What was done, in words."""
    changes: list[str] | None = None
    """Of a dry run: what would change."""
    error: str = ""
    """Why nothing was done, or not everything."""
    sid: str = ""


class Numbers:
    """The numbers of the configured account. Raises `UsageError` for what is asked wrongly."""

    def __init__(self, config: Config, outbox: Attachments, rest: TwilioRest) -> None:
        self._public_url = config.server.public_url
        self._loopback_will_do = bool(config.twilio.api_base_url)  # it is not the real Twilio that would call
        self._outbox = outbox
        self._account = Account(rest)

    async def every(self) -> list[Listed]:
        """Every number of the account, and those that are attached though it has them no more."""
        numbers = await self._account.numbers()
        remembered = {each.number_sid: each for each in await self._within(self._outbox.attached())}
        listed = [self._listed(each, remembered.pop(each.sid, None)) for each in numbers]
        return listed + [
            Listed(each.number, each.number_sid, "gone", "", "yes", [], shown(each.then))
            for each in remembered.values()
            if not _memory(each).over
        ]

    async def attach(self, number: str, then: str = "", *, dry_run: bool = False) -> Outcome:
        """Lead the calls of a number here, and on to `then`, or else to what handles them now."""
        _check(number)
        self._check_public_url()
        return await _outcome(number, lambda: self._attach(number, self._flow(then), dry_run=dry_run))

    async def detach(self, number: str, *, force: bool = False, dry_run: bool = False) -> Outcome:
        """Put back what was there; `force` also if somebody changed it since."""
        _check(number)
        return await _outcome(number, lambda: self._detach(number, force=force, dry_run=dry_run))

    async def _attach(self, number: str, then: CallFlow | None, *, dry_run: bool) -> Outcome:
        now = await self._found(number)
        stored = await self._remembered(now)
        memory = _memory(stored) if stored else None
        if trunk := now.handling["trunk_sid"]:
            raise BridgeError(TRUNKED.format(trunk=trunk))
        if memory and (touched := memory.touched(now.handling)):
            raise BridgeError(f"{_and(touched)} changed since it was attached: detach it with --force first")
        standing = memory.standing(now.handling) if memory else None
        original = memory.without_us(now.handling) if memory else now.handling
        if leads_here(original, self._public_url):
            if then is None:
                did = "leads here already, but not by this command; --then names where its calls should go on"
                return Outcome(number, did, sid=now.sid)
            original = {**original, "voice_url": then.url, "voice_method": then.method}
        if then is None and stored and standing == "attached":
            then = _flow_of(stored)
        planned = await self._planned(original, then)
        if stored and standing == "attached" and planned == Plan(_flow_of(stored), _memory(stored)):
            return Outcome(number, "is attached already", sid=now.sid)
        if dry_run:
            did = f"would be attached; {_going_on(planned.flow)}"
            return Outcome(number, did, told(now.handling, planned.memory.attached), sid=now.sid)
        await self._change(now, original, planned, known=memory is not None)
        return Outcome(number, f"attached; {_going_on(planned.flow)}", sid=now.sid)

    async def _change(self, now: Number, original: Handling, planned: Plan, *, known: bool) -> None:
        handling = now.handling
        if known:  # first back: what is remembered next knows nothing of what is there
            await self._account.update(now.sid, changes(handling, original))
            handling = original
        await self._remember(now, planned.memory, planned.flow)
        await self._account.update(now.sid, request(handling, planned.memory.attached))
        await self._check_alone(now, planned.memory, planned.memory.attached)

    async def _detach(self, number: str, *, force: bool, dry_run: bool) -> Outcome:
        now = await self._account.find(number)
        if now is None:
            return await self._forget(number, force=force, dry_run=dry_run)
        stored = await self._remembered(now)
        if stored is None:
            if leads_here(now.handling, self._public_url):
                raise BridgeError(
                    "it leads here, but not by this command, so what it did before is not known: "
                    "set its voice URL in the Twilio console"
                )
            return Outcome(number, "is not attached", sid=now.sid)
        memory = _memory(stored)
        changed = memory.changed(now.handling) if memory.standing(now.handling) == "changed" else []
        if changed and not force:
            raise BridgeError(
                f"{_and(changed)} changed since it was attached: --force puts back what was there before that"
            )
        if dry_run:
            return Outcome(number, "would be detached", told(now.handling, memory.before), sid=now.sid)
        await self._account.update(now.sid, request(now.handling, memory.before))
        over = replace(memory, over=True)
        await self._remember(now, over, _flow_of(stored))
        await self._check_alone(now, over, memory.before)
        return Outcome(number, "detached: it is as it was before", sid=now.sid)

    async def _check_alone(self, number: Number, memory: Memory, wanted: Handling) -> None:
        """Whoever else is at work on the number leaves something else there, or remembers something else."""
        found = await self._account.find(number.number)
        remembered = await self._within(self._outbox.attached())
        kept = any(each.number_sid == number.sid and _memory(each) == memory for each in remembered)
        if found is None or changes(found.handling, wanted) or not kept:
            raise BridgeError(CROSSED)

    async def _forget(self, number: str, *, force: bool, dry_run: bool) -> Outcome:
        """A number that the account has no more, but that is remembered."""
        attached = await self._within(self._outbox.attached())
        remembered = [each for each in attached if each.number == number and not _memory(each).over]
        if not remembered or not force:
            hint = "; it was attached, and --force forgets that" if remembered else ""
            raise BridgeError(f"the account has no such number{hint}")
        if not dry_run:
            for each in remembered:
                await self._within(self._outbox.detach(each.number_sid))
        return Outcome(number, "would be forgotten" if dry_run else "forgotten: the account has it no more")

    async def _planned(self, original: Handling, then: CallFlow | None) -> Plan:
        sid = original["voice_application_sid"]
        application = await self._account.application(sid) if sid else None
        if application and leads_to(application.voice_url, self._public_url) and then is None:
            raise BridgeError(
                f"its application {sid} leads here already: --then names where its calls should go on"
            )
        return plan(original, application, Addresses.of(self._public_url).voice, then)

    def _listed(self, number: Number, stored: Attachment | None) -> Listed:
        kind, where = handled_by(number.handling)
        attached: Attached = "by hand" if leads_here(number.handling, self._public_url) else "no"
        then = ""
        changed: list[str] = []
        standing = _memory(stored).standing(number.handling) if stored else "over"
        if stored and standing != "over":
            attached, then = STANDINGS[standing], shown(stored.then)
            changed = _memory(stored).changed(number.handling) if standing == "changed" else []
        return Listed(number.number, number.sid, kind, where, attached, changed, then)

    async def _found(self, number: str) -> Number:
        found = await self._account.find(number)
        if found is None:
            raise BridgeError("the account has no such number")
        return found

    async def _remembered(self, number: Number) -> Attachment | None:
        """What is remembered of a number that is attached, or half so.

        Asked after Twilio: a number that was seen to lead here was remembered before.
        """
        remembered = await self._within(self._outbox.attached())
        stored = next((each for each in remembered if each.number_sid == number.sid), None)
        return None if stored and _memory(stored).standing(number.handling) == "over" else stored

    async def _remember(self, number: Number, memory: Memory, flow: CallFlow) -> None:
        attachment = Attachment(number.sid, number.number, memory.encode(), flow.url, flow.method)
        await self._within(self._outbox.attach(attachment))

    async def _within(self, asked: Awaitable[_T]) -> _T:
        try:
            async with asyncio.timeout(OUTBOX_S):
                return await asked
        except TimeoutError as error:
            raise OutboxDown(f"the outbox did not answer within {OUTBOX_S:.0f} s") from error

    def _flow(self, then: str) -> CallFlow | None:
        try:
            call_flow_url(then)
        except ValueError as error:
            raise UsageError(f"then {error}.") from None
        if leads_to(then, self._public_url):
            raise UsageError("then leads back to this bridge: calls would go round in circles.")
        return CallFlow(then) if then else None

    def _check_public_url(self) -> None:
        parts = urlsplit(self._public_url)
        near = parts.scheme == "http" and is_loopback(parts.hostname or "")
        if parts.scheme != "https" and not (near and self._loopback_will_do):
            raise ConfigError(
                "server.public_url must be the https:// address at which Twilio reaches this bridge: "
                "the number's calls would be led there."
            )


async def _outcome(number: str, work: Callable[[], Awaitable[Outcome]]) -> Outcome:
    try:
        return await work()
    except UsageError:
        raise
    except BridgeError as error:
        return Outcome(number, error=str(error))


def _check(number: str) -> None:
    if not NUMBER.fullmatch(number):
        raise UsageError("A number is written with + and its country code, such as +15551234567.")


def _memory(stored: Attachment) -> Memory:
    memory = Memory.decode(stored.before)
    if memory is None:
        raise BridgeError("what is remembered of it cannot be read: a newer version attached it, so use that")
    return memory


def _flow_of(stored: Attachment) -> CallFlow:
    return CallFlow(stored.then, "GET" if stored.then_method == "GET" else "POST")


def _going_on(flow: CallFlow) -> str:
    return (
        f"its calls go on to {shown(flow.url)}"
        if flow.url
        else "nothing handled its calls: the line is kept open"
    )


def _and(names: list[str]) -> str:
    return f"{' and '.join(filter(None, [', '.join(names[:-1]), names[-1]]))} {'was' if len(names) == 1 else 'were'}"
