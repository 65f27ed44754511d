"""What goes wrong with the API's requests, as a test or a demonstration scripts it."""

import asyncio
import random
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Self

from bridge.local.twilio.rest.refusal import FAILED, INVALID, NOT_FOUND, TOO_MANY, UNAUTHORIZED, Refused

_CODES: Final = {
    HTTPStatus.BAD_REQUEST: INVALID,
    HTTPStatus.UNAUTHORIZED: UNAUTHORIZED,
    HTTPStatus.NOT_FOUND: NOT_FOUND,
    HTTPStatus.TOO_MANY_REQUESTS: TOO_MANY,
}


def refused(status: int, code: int | None = None, retry_after_s: int | None = None) -> Refused:
    """What a scripted answer is; Twilio's usual code for the status unless there is another."""
    code = code or _CODES.get(HTTPStatus(status), FAILED)
    return Refused(f"This was to be answered with {status}.", code, status, retry_after_s=retry_after_s)


@dataclass(slots=True)
class Fault:
    """Concerns requests whose `METHOD /path` contains `where`: after `skips`, `times` (None: all), by chance `rate`.

    It first waits, for `delay_s` and for `released`, and then answers with `status`, or drops the connection, or
    (neither) lets the request be answered as ever. With `afterwards` what was asked for is done before that.
    """

    status: int | None = None
    where: str = ""
    skips: int = 0
    times: int | None = 1
    rate: float = 1.0
    delay_s: float = 0.0
    released: asyncio.Event | None = None
    """The request hangs until this is set."""
    drops: bool = False
    afterwards: bool = False
    code: int | None = None
    """Twilio's error; None: the usual one for the status."""
    retry_after_s: int | None = None
    """What the header of that name says; None: there is none."""
    met: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the first request met it; with `afterwards` what was asked for is done by then."""

    def takes(self, request: str, chance: random.Random) -> bool:
        """Whether it happens to this request, which then counts."""
        if self.where not in request or self.times == 0 or chance.random() >= self.rate:
            return False
        if self.skips:
            self.skips -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True

    async def happen(self) -> None:
        """Wait, and raise what the request is answered with: Refused, or ConnectionError for no answer at all."""
        self.met.set()
        await asyncio.sleep(self.delay_s)
        if self.released is not None:
            await self.released.wait()
        if self.drops:
            raise ConnectionError
        if self.status is not None:
            raise refused(self.status, self.code, self.retry_after_s)


class Faults:
    """Those that are to come; the first that fits a request happens to it. The same `seed`, the same chances."""

    def __init__(self, seed: int = 0) -> None:
        self.coming: list[Fault] = []
        self._chance = random.Random(seed)  # noqa: S311 - reproducible faults, not a secret

    def add(self, fault: Fault) -> Fault:
        """Have one more to come."""
        self.coming.append(fault)
        return fault

    def clear(self) -> Self:
        """Everything is well again; what hangs already is not released."""
        self.coming.clear()
        return self

    def of(self, request: str) -> Fault | None:
        """What happens to this request, if anything does."""
        return next((fault for fault in self.coming if fault.takes(request, self._chance)), None)
