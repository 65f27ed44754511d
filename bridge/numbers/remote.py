"""The numbers as a running bridge has them attached and detached: the same as `Numbers`, over its API."""

from typing import Any, Final, Protocol, TypeVar

import msgspec

from bridge.api.client import Client
from bridge.errors import BridgeError
from bridge.numbers.numbers import Listed, Outcome

PATH: Final = "/numbers"

_T = TypeVar("_T")


class Desk(Protocol):
    """Who does it: this process, or a running bridge."""

    async def every(self) -> list[Listed]:
        """See `Numbers.every`."""

    async def attach(self, number: str, then: str = "", *, dry_run: bool = False) -> Outcome:
        """See `Numbers.attach`."""

    async def detach(self, number: str, *, force: bool = False, dry_run: bool = False) -> Outcome:
        """See `Numbers.detach`."""


class RemoteNumbers:
    """The numbers of the bridge that `client` speaks to. Raises what the client raises."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def every(self) -> list[Listed]:
        """Every number of the account."""
        answer = await self._client.get(PATH, (), holds="numbers")
        return _read(answer["numbers"], list[Listed])

    async def attach(self, number: str, then: str = "", *, dry_run: bool = False) -> Outcome:
        """Lead the calls of a number to that bridge."""
        return await self._outcome("attach", {"number": number, "then": then, "dry_run": dry_run})

    async def detach(self, number: str, *, force: bool = False, dry_run: bool = False) -> Outcome:
        """Put back what was there."""
        return await self._outcome("detach", {"number": number, "force": force, "dry_run": dry_run})

    async def _outcome(self, verb: str, body: dict[str, Any]) -> Outcome:
        answer = await self._client.post(f"{PATH}/{verb}", body, holds="outcome")
        return _read(answer["outcome"], Outcome)


def _read(value: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise BridgeError("the bridge answers something else: is it of another version?") from error
