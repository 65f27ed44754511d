"""What a bridge answers about numbers arrives as it was told there, and what is no answer is a sentence."""

from collections.abc import Mapping
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from bridge.api.client import Client
from bridge.errors import BridgeError
from bridge.numbers.numbers import Listed, Outcome
from bridge.numbers.remote import RemoteNumbers

LISTED = {
    "number": "+15550101",
    "sid": "PN1",
    "handled_by": "url",
    "where": "https://b.example.com/twilio/voice",
    "attached": "changed",
    "changed": ["voice_url"],
    "then": "",
}


async def asked(answer: Any) -> tuple[list[Listed], Outcome, Outcome, list[Mapping[str, Any]]]:
    bodies: list[Mapping[str, Any]] = []

    async def every(_: web.Request) -> web.Response:
        return web.json_response({"numbers": answer})

    async def change(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response(
            {"outcome": answer and {"number": "+1", "did": request.path, "changes": ["a"]}}
        )

    app = web.Application()
    app.add_routes(
        [
            web.get("/api/numbers", every),
            web.post("/api/numbers/attach", change),
            web.post("/api/numbers/detach", change),
        ]
    )
    async with TestServer(app) as server, Client(str(server.make_url("")), "token") as client:
        desk = RemoteNumbers(client)
        attached = await desk.attach("+1", "https://a.example.com", dry_run=True)
        return await desk.every(), attached, await desk.detach("+1", force=True), bodies


async def test_everything_arrives() -> None:
    listed, attached, detached, bodies = await asked([LISTED])
    assert listed == [Listed(**LISTED)]  # type: ignore[arg-type]  # as from JSON
    assert attached == Outcome("+1", "/api/numbers/attach", ["a"])
    assert detached == Outcome("+1", "/api/numbers/detach", ["a"])
    assert bodies == [
        {"number": "+1", "then": "https://a.example.com", "dry_run": True},
        {"number": "+1", "force": True, "dry_run": False},
    ]


@pytest.mark.parametrize("answer", [None, 7, [1], [{}], [LISTED | {"attached": "perhaps"}]])
async def test_an_answer_of_another_version(answer: Any) -> None:
    with pytest.raises(BridgeError, match="is it of another version"):
        await asked(answer)
