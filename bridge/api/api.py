"""The operator's API as an application of its own: what all of its routes have in common."""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from bridge.api.gate import Gate
from bridge.errors import BridgeError, UsageError
from bridge.outbox.outbox import OutboxDown

PREFIX: Final = "/api"

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
        except UsageError as error:
            return _refusal(web.HTTPBadRequest(text=str(error)))
        except OutboxDown as error:
            return _refusal(web.HTTPServiceUnavailable(text=str(error), headers={"Retry-After": "5"}))
        except BridgeError as error:
            return _refusal(web.HTTPInternalServerError(text=str(error)))

    app = web.Application(middlewares=[checked])
    app.add_routes(routes)
    return app


def _refusal(refused: web.HTTPError) -> web.Response:
    sentence = refused.text or refused.reason
    if refused.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:  # the router's own
        sentence = f"{HTTPStatus(refused.status).description}."
    kept = {name: value for name, value in refused.headers.items() if not name.startswith("Content-")}
    return web.json_response({"error": sentence}, status=refused.status, headers=kept)
