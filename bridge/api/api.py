"""The operator's API as an application of its own: what all of its routes have in common."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.api.gate import Gate
from bridge.errors import BridgeError, UsageError
from bridge.outbox.outbox import OutboxDown
from bridge.twilio.console import Refused
from bridge.twilio.rest import RestFailed

PREFIX: Final = "/api"

LATER: Final = {"Retry-After": "5"}

REFUSALS: Final[Mapping[str, type[web.HTTPError]]] = {
    "unknown": web.HTTPNotFound,
    "conflict": web.HTTPConflict,
    "unready": web.HTTPServiceUnavailable,
}
"""What a refusal of the console is answered with."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def api(gate: Gate, routes: Iterable[web.RouteDef]) -> web.Application:
    """The routes behind the gate. Refusals of every kind are `{"error": "one sentence"}`."""

    @web.middleware
    async def checked(request: web.Request, handler: _Handler) -> web.StreamResponse:
        try:
            gate.check(request)
            return await handler(request)
        except web.HTTPError as refusal:
            return _refusal(refusal)
        except BridgeError as error:
            return _refusal(_meaning(error))

    app = web.Application(middlewares=[checked])
    app.add_routes(routes)
    return app


def _meaning(error: BridgeError) -> web.HTTPError:
    text = str(error)
    if isinstance(error, UsageError):
        return web.HTTPBadRequest(text=text)
    if isinstance(error, OutboxDown):
        return web.HTTPServiceUnavailable(text=text, headers=LATER)
    if isinstance(error, Refused):
        return REFUSALS[error.why](text=text, headers=LATER if error.why == "unready" else None)
    if isinstance(error, RestFailed):
        conflict = web.HTTPConflict if error.over else web.HTTPBadGateway
        return web.HTTPNotFound(text=text) if error.unknown else conflict(text=text)
    return web.HTTPInternalServerError(text=text)


def _refusal(refused: web.HTTPError) -> web.Response:
    sentence = refused.text or refused.reason
    if sentence == f"{refused.status}: {refused.reason}":  # the router's own
        sentence = f"{HTTPStatus(refused.status).description}."
    kept = {name: value for name, value in refused.headers.items() if not name.startswith("Content-")}
    return web.json_response({"error": sentence}, status=refused.status, headers=kept)
