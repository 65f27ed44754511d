"""The aiohttp application: which route is answered by whom. Wiring only."""

from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from bridge.twilio.routes import TwilioRoutes

MAX_BODY: Final = 64 * 1024
"""Bytes of a request body; Twilio's forms have a few thousand."""


def application(twilio: TwilioRoutes, unready: Callable[[], Awaitable[str]]) -> web.Application:
    """The application; `unready` says why no calls can be taken, or nothing."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        reason = await unready()
        if reason:
            return web.json_response({"status": reason}, status=503, headers={"Retry-After": "5"})
        return web.json_response({"status": "ready"})

    async def metrics(_request: web.Request) -> web.Response:
        await unready()  # brings the outbox's gauges up to date
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=MAX_BODY)
    app.add_routes(twilio.routes())
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app
