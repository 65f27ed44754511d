"""The JSON object that a request brings."""

import asyncio
import json
from typing import Any, Final

from aiohttp import web

BODY_S: Final = 5.0
"""How long a body may take; it is 64 KiB at most."""


async def json_object(request: web.Request) -> dict[str, Any]:
    """Read the body; raises 400, 408, 413 (from the server's limit) or 415 with a sentence."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="The body must be JSON, with Content-Type: application/json.")
    try:
        async with asyncio.timeout(BODY_S):
            body = await request.read()
    except TimeoutError as error:
        raise web.HTTPRequestTimeout(text=f"The body took longer than {BODY_S:.0f} s.") from error
    except web.RequestPayloadError as error:
        raise web.HTTPBadRequest(text="The body is not what its Content-Encoding says.") from error
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text="The body is not JSON.") from error
    if not isinstance(value, dict):
        raise web.HTTPBadRequest(text="The body must be a JSON object.")
    return value
