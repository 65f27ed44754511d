"""`/api/deliveries`: what was sent, what waits, what was given up; sending it again, and erasing a call."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from aiohttp import web
from yarl import URL

from bridge import events, log
from bridge.api import filters
from bridge.api.body import json_object
from bridge.errors import UsageError
from bridge.outbox.outbox import Outbox, OutboxDown, Record, Selection, endpoint_tag

PAGE: Final = 100
"""Records of one answer unless `limit` says otherwise."""

LARGEST_PAGE: Final = 1000

OUTBOX_S: Final = 30.0
"""How long an operator waits for the outbox; a replay of a million events takes a few seconds."""

_T = TypeVar("_T")

_logger = log.get(__name__)


class Deliveries:
    """The handlers. `forget` ends a call's transcription and removes its audio; whether there was any."""

    def __init__(
        self,
        outbox: Outbox,
        forget: Callable[[str], Awaitable[bool]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._forget = forget
        self._wall = wall

    def routes(self) -> list[web.RouteDef]:
        """What to add to the API."""
        return [
            web.get("/deliveries", self.list),
            web.post("/deliveries/replay", self.replay),
            web.post("/deliveries/erase", self.erase),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """Records, the newest first, and `before`: what the next page is asked for with."""
        given = {name: request.query.getall(name) for name in request.query}
        limit = filters.whole("limit", given.pop("limit", [str(PAGE)])[-1], 1, LARGEST_PAGE)
        before = filters.whole("before", given.pop("before", ["0"])[-1], 0, 2**63 - 1) or None
        selection = filters.selection(given, self._wall())
        # One more than asked for tells whether there is another page.
        found = await within(self._outbox.records(selection, limit + 1, before=before))
        following = found[limit - 1].serial if len(found) > limit else None
        return web.json_response({"deliveries": [_told(each) for each in found[:limit]], "before": following})

    async def replay(self, request: web.Request) -> web.Response:
        """Deliver what the filters select again."""
        body = await json_object(request)
        everything = body.pop("all", False)
        if not isinstance(everything, bool):
            raise UsageError("all must be true or false.")
        selection = filters.selection(filters.texts(body), self._wall())
        if selection == Selection() and not everything:
            raise UsageError(
                f'Name a filter ({", ".join(filters.FILTERS)}), or say {{"all": true}} to replay everything.'
            )
        replayed = await within(self._outbox.replay(selection))
        _logger.info("deliveries_replayed", replayed=replayed, remote=request.remote, **_loggable(selection))
        return web.json_response({"replayed": replayed})

    async def erase(self, request: web.Request) -> web.Response:
        """Remove what is kept of a call: bodies and audio. A second time is no error, and finds nothing."""
        body = await json_object(request)
        call_sid = body.get("call_sid")
        if not isinstance(call_sid, str) or len(body) != 1:
            raise UsageError('The body must be {"call_sid": "CA..."} and nothing else.')
        filters.call_sid(call_sid)
        erased = await within(self._outbox.erase(call_sid))
        audio = await self._forget(call_sid)
        _logger.info("call_erased", call_sid=call_sid, erased=erased, audio=audio, remote=request.remote)
        return web.json_response({"erased": erased, "audio": audio})


async def within(asked: Awaitable[_T]) -> _T:
    """What the outbox answers; raises `OutboxDown` also when it does not."""
    try:
        async with asyncio.timeout(OUTBOX_S):
            return await asked
    except TimeoutError as error:
        raise OutboxDown(f"the outbox did not answer within {OUTBOX_S:.0f} s") from error


def _told(record: Record) -> Mapping[str, Any]:
    """A record as JSON: its endpoint by tag and host, as the URL may hold secrets."""
    return {
        "serial": record.serial,
        "event_id": record.event_id,
        "endpoint": endpoint_tag(record.endpoint),
        "host": URL(record.endpoint).host,
        "call_sid": record.call_sid,
        "sequence": record.sequence,
        "type": record.type,
        "state": record.state,
        "replay": record.replay,
        "kept": record.kept,
        "sha256": record.sha256,
        "created_at": events.timestamp(record.created_at),
        "delivered_at": _time(record.delivered_at),
        "tries": record.tries,
        "last_status": record.last_status,
        "last_error": record.last_error,
        "due_at": _time(record.due_at),
    }


def _time(moment: float | None) -> str | None:
    return None if moment is None else events.timestamp(moment)


def _loggable(selection: Selection) -> Mapping[str, Any]:
    endpoint = selection.endpoint
    return {
        "call_sid": selection.call_sid,
        "endpoint": endpoint_tag(endpoint) if "://" in endpoint else endpoint,
        "states": sorted(selection.states),
        "event_ids": len(selection.event_ids),
        "since": _time(selection.since),
        "until": _time(selection.until),
    }
