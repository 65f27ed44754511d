"""`/api/numbers`: the account's telephone numbers; leading their calls here, and back again."""

from dataclasses import asdict
from typing import Any

from aiohttp import web

from bridge import log
from bridge.api.body import json_object
from bridge.errors import UsageError
from bridge.numbers.numbers import Numbers, Outcome

_logger = log.get(__name__)


class NumberRoutes:
    """The handlers. What goes wrong with a number is in its `outcome`."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def routes(self) -> list[web.RouteDef]:
        """What to add to the API."""
        return [
            web.get("/numbers", self.every),
            web.post("/numbers/attach", self.attach),
            web.post("/numbers/detach", self.detach),
        ]

    async def every(self, _request: web.Request) -> web.Response:
        """Every number: what it does now, and whether it is attached."""
        return web.json_response({"numbers": [asdict(each) for each in await self._numbers.every()]})

    async def attach(self, request: web.Request) -> web.Response:
        """Lead a number's calls here."""
        given = await _given(request, {"number": "", "then": "", "dry_run": False})
        return _answered("number_attached", request, await self._numbers.attach(**given))

    async def detach(self, request: web.Request) -> web.Response:
        """Put back what was there."""
        given = await _given(request, {"number": "", "force": False, "dry_run": False})
        return _answered("number_detached", request, await self._numbers.detach(**given))


async def _given(request: web.Request, defaults: dict[str, str | bool]) -> dict[str, Any]:
    body = await json_object(request)
    for name, value in body.items():
        if name not in defaults:
            raise UsageError(f"{ascii(name)[:60]} is not known: there are {', '.join(defaults)}.")
        if type(value) is not type(defaults[name]):
            kind = "true or false" if isinstance(defaults[name], bool) else "a text"
            raise UsageError(f"{name} must be {kind}.")
    return defaults | body


def _answered(event: str, request: web.Request, outcome: Outcome) -> web.Response:
    if outcome.did and outcome.changes is None:  # else it failed, or was a dry run
        _logger.info(event, number_sid=outcome.sid, remote=request.remote)
    return web.json_response({"outcome": asdict(outcome)})
