"""The telephone numbers of a Twilio account, by its REST API."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

from twilio.rest import Client

from bridge.errors import BridgeError
from bridge.numbers.handling import FIELDS, Application, Handling
from bridge.twilio.rest import RestFailed, TwilioRest

_T = TypeVar("_T")

PAGE: Final = 100
"""Numbers that are asked for at a time. The API gives up to 1,000, but then it takes long for an answer."""

MOST: Final = 20_000
"""Numbers of an account; for more of them somebody has a tool of their own."""

PAGES: Final = 1_000
"""That are read of a list, however few numbers they have: one that leads back to itself would never end."""

PAUSES_S: Final = (1.0, 2.0, 4.0)
"""Before the same is asked again because Twilio was asked too often."""

LONGEST_S: Final = 15.0
"""If Twilio wants a longer pause, that is for the operator to wait."""


_DEFAULTS: Final = {field: "POST" for field in FIELDS if field.endswith("_method")}
"""Twilio's own, for what it does not show: the empty text is none that it would take."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number as Twilio has it."""

    sid: str
    """PN..."""
    number: str
    """+15550199"""
    handling: Handling


class Account:
    """The numbers of one account. Every method raises `RestFailed`."""

    def __init__(self, rest: TwilioRest, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._rest = rest
        self._sleep = sleep

    async def numbers(self) -> list[Number]:
        """All of them. Raises `BridgeError` if there are more than `MOST`."""
        found = await self._listed()
        if len(found) > MOST:
            raise BridgeError(f"The account has more than {MOST} numbers: that is too much to list.")
        return found

    async def find(self, number: str) -> Number | None:
        """The one of that number. The API finds parts of numbers too."""
        return next((each for each in await self._listed(phone_number=number) if each.number == number), None)

    async def update(self, sid: str, fields: Handling) -> None:
        """Change fields of a number; the others stay."""
        if fields:
            await self._ask(
                lambda client: client.incoming_phone_numbers(sid).update_async(**fields), "the number"
            )

    async def application(self, sid: str) -> Application:
        """What an application does with calls."""

        async def fetch(client: Client) -> Application:
            found = await client.applications(sid).fetch_async()
            return Application(
                *(_text(found, name) for name in ("voice_url", "voice_method")),
                *(_text(found, name) for name in ("status_callback", "status_callback_method")),
            )

        return await self._ask(fetch, "the number's application")

    async def _listed(self, **filters: str) -> list[Number]:
        async def listed(client: Client) -> list[Number]:
            found: list[Number] = []
            page = await client.incoming_phone_numbers.page_async(**filters, page_size=PAGE)
            for _ in range(PAGES):
                found += [_number(each) for each in page]
                page = await page.next_page_async() if len(found) <= MOST else None
                if page is None:
                    return found
            raise LookupError(PAGES)

        return await self._ask(listed, "the account's numbers")

    async def _ask(self, work: Callable[[Client], Awaitable[_T]], about: str) -> _T:
        for pause_s in PAUSES_S:
            try:
                return await self._rest.ask(work, about=about)
            except RestFailed as failed:
                wanted_s = failed.retry_after_s or 0
                if failed.status != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                if wanted_s > LONGEST_S:
                    raise RestFailed(
                        f"{failed} It may be asked again in {wanted_s:.0f} s.",
                        failed.status,
                        failed.code,
                        passing=True,
                        retry_after_s=wanted_s,
                    ) from failed
                await self._sleep(max(pause_s, wanted_s))
        return await self._rest.ask(work, about=about)


def _number(resource: Any) -> Number:
    return Number(
        _text(resource, "sid"),
        _text(resource, "phone_number"),
        {field: _text(resource, field) or _DEFAULTS.get(field, "") for field in FIELDS},
    )


def _text(resource: Any, name: str) -> str:
    """A field of a resource; the library hands on whatever was answered."""
    value = getattr(resource, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(name)
    return value
