"""`/api/numbers` of a running bridge: from attach over a call to detach."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest
from structlog.testing import capture_logs

from bridge.local.twilio.rest import RestApi
from bridge.twilio.twiml import PAUSE_S
from tests.doubles.bridge import ACCOUNT, Setup, running
from tests.doubles.exchange import HANDLER, OURS
from tests.doubles.switchboard import FORM, post

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
ONE = FORM["To"]


@dataclass
class Operator:
    setup: Setup
    api: RestApi
    session: aiohttp.ClientSession

    async def get(self) -> list[dict[str, Any]]:
        async with self.session.get(f"{self.setup.url}/api/numbers") as answer:
            assert answer.status == 200
            listed: list[dict[str, Any]] = (await answer.json())["numbers"]
            return listed

    async def post(self, verb: str, body: Any, status: int = 200) -> dict[str, Any]:
        async with self.session.post(f"{self.setup.url}/api/numbers/{verb}", json=body) as answer:
            told: dict[str, Any] = await answer.json()
            assert answer.status == status, told
            return told

    async def twiml(self, path: str = "/twilio/voice") -> list[ET.Element]:
        """The verbs that a call of the number is answered with."""
        status, text = await post(self.setup, self.session, path)
        assert status == 200
        return list(ET.fromstring(text))


@asynccontextmanager
async def operating(directory: Path, **sections: Any) -> AsyncIterator[Operator]:
    async with (
        RestApi(ACCOUNT) as api,
        running(
            directory,
            NOWHERE,
            server={"admin_token": TOKEN},
            twilio={"api_base_url": api.url, **sections.pop("twilio", {})},
            **sections,
        ) as setup,
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
    ):
        yield Operator(setup, api, session)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_attach_call_detach(tmp_path: Path, method: str) -> None:
    async with operating(tmp_path) as operator:
        operator.api.numbers.add(ONE, voice_url=HANDLER, voice_method=method)
        before = operator.api.numbers.snapshot()
        with capture_logs() as logs:
            told = (await operator.post("attach", {"number": ONE}))["outcome"]
        assert (told["error"], told["number"]) == ("", ONE)
        assert ONE not in str(logs)
        assert "example.com" not in str([each for each in logs if each["event"] == "number_attached"])
        (listed,) = await operator.get()
        assert (listed["attached"], listed["where"], listed["handled_by"]) == ("yes", OURS, "url")
        assert operator.api.numbers.handler(ONE).url == OURS

        start, redirect = await operator.twiml()
        assert (start.tag, redirect.text, redirect.attrib) == ("Start", HANDLER, {"method": method})
        (redirect,) = await operator.twiml("/twilio/resume")
        assert redirect.text == HANDLER

        told = (await operator.post("detach", {"number": ONE}))["outcome"]
        assert told["error"] == ""
        assert operator.api.numbers.snapshot() == before


async def test_the_configuration_decides_where_calls_go_on(tmp_path: Path) -> None:
    flow = tmp_path / "flow.xml"
    flow.write_text("<Response><Say>Hello</Say><Hangup/></Response>")
    for then, tags in (
        ("https://own.example.com/x", ["Start", "Redirect"]),
        (str(flow), ["Start", "Say", "Hangup"]),
    ):
        async with operating(tmp_path, numbers=[{"number": ONE, "then": then}]) as operator:
            operator.api.numbers.add(ONE, voice_url=HANDLER)
            await operator.post("attach", {"number": ONE})
            verbs = await operator.twiml()
            assert [verb.tag for verb in verbs] == tags
            assert HANDLER not in [verb.text for verb in verbs]
            await operator.post("detach", {"number": ONE})


async def test_a_number_that_had_nothing_keeps_the_line_open(tmp_path: Path) -> None:
    async with operating(tmp_path, twilio={"mode": "connect"}) as operator:
        operator.api.numbers.add(ONE)
        await operator.post("attach", {"number": ONE})
        assert [verb.tag for verb in await operator.twiml()] == ["Connect", "Redirect"]
        pause, _ = await operator.twiml("/twilio/resume")
        assert pause.attrib == {"length": str(PAUSE_S)}


async def test_what_fails_with_a_number_is_its_outcome(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        for verb in ("attach", "detach"):
            told = (await operator.post(verb, {"number": ONE}))["outcome"]
            assert (told["error"], told["did"]) == ("the account has no such number", "")
        operator.api.refuse = 500
        async with operator.session.get(f"{operator.setup.url}/api/numbers") as answer:
            assert answer.status == 502
            assert "answered 500" in (await answer.json())["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"number": "5550101"}, "A number is written with +"),
        ({}, "A number is written with +"),
        ({"number": ONE, "then": "ftp://x"}, "then must be a URL"),
        ({"number": 1}, "number must be a text"),
        ({"number": ONE, "dry_run": "yes"}, "dry_run must be true or false"),
        ({"number": ONE, "dry_run": 1}, "dry_run must be true or false"),
        ({"number": ONE, "Then": ""}, "'Then' is not known"),
        ([], "must be a JSON object"),
    ],
)
async def test_what_is_asked_wrongly(tmp_path: Path, body: Any, words: str) -> None:
    async with operating(tmp_path) as operator:
        assert words in (await operator.post("attach", body, 400))["error"]
        assert operator.api.asked == []


async def test_without_the_token_there_is_nothing(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator, aiohttp.ClientSession() as stranger:
        operator.api.numbers.add(ONE)
        async with stranger.get(f"{operator.setup.url}/api/numbers") as answer:
            assert answer.status == 401
        for verb in ("attach", "detach"):
            url = f"{operator.setup.url}/api/numbers/{verb}"
            async with stranger.post(url, json={"number": ONE}) as answer:
                assert answer.status == 401
        assert operator.api.asked == []
