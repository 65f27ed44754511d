"""`/api/calls`: what is known of a call."""

from aiohttp import web

from bridge.api import filters
from bridge.api.deliveries import within
from bridge.outbox.outbox import Outbox


class CallRoutes:
    """The handlers."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def routes(self) -> list[web.RouteDef]:
        """What to add to the API."""
        return [web.get("/calls/{call_sid}/transcript", self.transcript)]

    async def transcript(self, request: web.Request) -> web.Response:
        """What was said so far, both tracks, by when it began; empty for a call of which no text is kept."""
        call_sid = request.match_info["call_sid"]
        filters.call_sid(call_sid)
        lines = await within(self._outbox.transcript(call_sid))
        return web.json_response(
            {
                "call_sid": call_sid,
                "transcript": [
                    {
                        "track": line.track,
                        "text": line.text,
                        "start_ms": line.start_ms,
                        "end_ms": line.end_ms,
                    }
                    for line in sorted(lines, key=lambda line: line.start_ms)
                ],
            }
        )
