"""The aiohttp application: which route is answered by whom. Wiring only."""

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST

from bridge import metrics
from bridge.api.api import PREFIX
from bridge.twilio.routes import TwilioRoutes
from bridge.workers.line import Lost

MAX_BODY: Final = 64 * 1024
"""Bytes of a request body; Twilio's forms have a few thousand."""


async def _refusals_are_counted(_request: web.Request, response: web.StreamResponse) -> None:
    if response.status >= HTTPStatus.BAD_REQUEST:
        metrics.HTTP_REFUSALS.labels(str(response.status)).inc()


def _malformed_requests_are_counted(record: logging.LogRecord) -> bool:
    """Bytes that are not HTTP, or not the body they say, have got their 400: no error of ours, and worth no traceback."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    metrics.HTTP_REFUSALS.labels("malformed").inc()
    return False


def application(
    twilio: TwilioRoutes,
    unready: Callable[[], Awaitable[str]],
    figures: Callable[[], Awaitable[bytes]],
    operator: web.Application | None = None,
) -> web.Application:
    """The application; `unready` says why no calls can be taken, or nothing. `figures` is what Prometheus reads.

    `operator` is the API, if there is one.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_request: web.Request) -> web.Response:
        reason = await unready() or ("full" if twilio.streams.full() else "")
        if reason:
            return web.json_response({"status": reason}, status=503, headers={"Retry-After": "5"})
        return web.json_response({"status": "ready"})

    async def prometheus(_request: web.Request) -> web.Response:
        try:
            return web.Response(body=await figures(), headers={"Content-Type": CONTENT_TYPE_LATEST})
        except Lost as lost:
            return web.Response(text=f"no figures: {lost}\n", status=503, headers={"Retry-After": "5"})

    logging.getLogger("aiohttp.server").addFilter(_malformed_requests_are_counted)
    app = web.Application(client_max_size=MAX_BODY)
    app.on_response_prepare.append(_refusals_are_counted)
    app.add_routes(twilio.routes())
    app.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", prometheus)]
    )
    if operator is not None:
        app.add_subapp(PREFIX, operator)
    return app
