import asyncio
import hashlib
import io
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge import events
from bridge.api import deliveries as module
from bridge.local.receiver import Answer
from bridge.local.twilio.script import Script
from bridge.outbox.outbox import Outgoing, endpoint_tag
from bridge.webhook import schedule
from tests.doubles.bridge import Setup, running
from tests.doubles.numbered import NumberedWhisper, speech

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
ONE, TWO = "CA" + "1" * 32, "CA" + "2" * 32
SAID = "my account number is 4711"


class Operator:
    """Asks the API, and says what it answers."""

    def __init__(self, setup: Setup, session: aiohttp.ClientSession) -> None:
        self.setup = setup
        self.session = session

    async def get(self, query: str = "", status: int = 200) -> dict[str, Any]:
        async with self.session.get(f"{self.setup.url}/api/deliveries{query}") as answer:
            told: dict[str, Any] = await answer.json()
            assert answer.status == status, told
            return told

    async def post(self, path: str, body: Any, status: int = 200) -> dict[str, Any]:
        async with self.session.post(f"{self.setup.url}/api/deliveries/{path}", json=body) as answer:
            told: dict[str, Any] = await answer.json()
            assert answer.status == status, told
            return told

    async def publish(self, call_sid: str, count: int, query: str = "") -> list[Outgoing]:
        """Events of a call as its publisher stores them."""
        outbox, endpoint = self.setup.bridge._services.outbox, self.setup.receiver.url + query
        lease = await outbox.own_call(call_sid, "a test", b"")
        stored = []
        for sequence in range(lease.next_sequence, lease.next_sequence + count):
            identity = events.event_id(call_sid, endpoint, sequence, "call.dtmf")
            data = {"call_sid": call_sid, "sequence": sequence, "text": SAID}
            body = json.dumps({"type": "call.dtmf", "data": data}).encode()
            stored.append(Outgoing(endpoint, sequence, identity, "call.dtmf", body))
        await outbox.publish(lease, stored, {})
        return stored

    async def until(self, state: str, count: int, query: str = "") -> list[dict[str, Any]]:
        """The records, once so many of them are in this state."""
        async with asyncio.timeout(10):
            while True:
                records: list[dict[str, Any]] = (await self.get(query))["deliveries"]
                if sum(record["state"] == state for record in records) == count:
                    return records
                await asyncio.sleep(0.02)


@asynccontextmanager
async def operating(directory: Path, whisper_url: str = NOWHERE, **sections: Any) -> AsyncIterator[Operator]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        running(directory, whisper_url, server={"admin_token": TOKEN}, **sections) as setup,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        yield Operator(setup, session)


def empty(directory: Path) -> bool:
    """Whether no call's audio lies there."""
    return not any(name.startswith("CA") for _, folders, _ in os.walk(directory) for name in folders)


@pytest.fixture
def hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails once is given up."""
    monkeypatch.setattr(schedule, "is_spent", lambda *_, **__: True)


async def test_without_a_token_in_the_configuration_there_is_no_api(tmp_path: Path) -> None:
    async with running(tmp_path, NOWHERE) as setup, aiohttp.ClientSession() as client:
        for method, path in (("GET", ""), ("POST", "/replay"), ("POST", "/erase")):
            for headers in ({}, {"Authorization": "Bearer "}):
                url = f"{setup.url}/api/deliveries{path}"
                async with client.request(method, url, headers=headers) as answer:
                    assert answer.status == 404


async def test_a_delivery_is_told_with_everything_but_its_body_and_its_url(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        (stored,) = await operator.publish(ONE, 1, "?key=secret")
        (told,) = await operator.until("done", 1)
        received = await operator.setup.receiver.wait_for(lambda r: r.call_sid == ONE)
    assert received.webhook_id == stored.event_id
    created, delivered = told.pop("created_at"), told.pop("delivered_at")
    assert created <= delivered
    assert all(moment.endswith("Z") and len(moment) == 24 for moment in (created, delivered))
    assert told == {
        "serial": 1,
        "event_id": stored.event_id,
        "endpoint": endpoint_tag(stored.endpoint),
        "host": "127.0.0.1",
        "call_sid": ONE,
        "sequence": 1,
        "type": "call.dtmf",
        "state": "done",
        "replay": False,
        "kept": True,
        "sha256": hashlib.sha256(stored.body).hexdigest(),
        "tries": 1,
        "last_status": None,
        "last_error": None,
        "due_at": None,
    }


async def test_pages_are_the_newest_first_and_without_a_hole(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        await operator.publish(ONE, 7)
        whole = await operator.until("done", 7)
        assert [record["sequence"] for record in whole] == [7, 6, 5, 4, 3, 2, 1]
        pages, before = [], ""
        while True:
            page = await operator.get(f"?limit=3{before}")
            pages.append(page["deliveries"])
            if page["before"] is None:
                break
            before = f"&before={page['before']}"
        assert [len(page) for page in pages] == [3, 3, 1]
        assert [record for page in pages for record in page] == whole
        assert (await operator.get("?limit=7"))["before"] is None


@pytest.mark.usefixtures("hopeless")
async def test_filters_leave_only_what_all_of_them_select(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        first = await operator.publish(ONE, 2)
        await operator.until("done", 2)
        operator.setup.receiver.default = Answer(400)
        second = await operator.publish(TWO, 1, "?key=secret")
        await operator.until("dead", 1)
        tag = endpoint_tag(second[0].endpoint)
        ids = [*(each.event_id for each in first), second[0].event_id]
        for query, found in (
            ("", ids),
            (f"?call_sid={ONE}", ids[:2]),
            ("?state=dead", ids[2:]),
            ("?state=dead&state=done", ids),
            ("?state=pending", []),
            (f"?event_id={ids[0]}&event_id={ids[2]}", [ids[0], ids[2]]),
            (f"?endpoint={tag}", ids[2:]),
            (f"?call_sid={ONE}&endpoint={tag}", []),
            ("?endpoint=https://agent.example.com/", []),
            ("?since=1h", ids),
            ("?until=1h", []),
            ("?since=2020-01-01T00:00:00Z&until=2021-01-01T00:00:00Z", []),
        ):
            told = (await operator.get(query))["deliveries"]
            assert [record["event_id"] for record in told] == found[::-1], query


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?since=yesterday", "since 'yesterday' cannot be used"),
        ("?since=2026-08-22T10:00:00+02:00", "since '2026-08-22T10:00:00 02:00' cannot be used"),
        ("?call=CA1", "'call' is not a filter"),
        ("?state=ded", "state 'ded' cannot be used"),
        ("?limit=0", "limit '0' cannot be used: expected a number from 1 to 1000"),
        ("?limit=1001", "limit '1001'"),
        ("?limit=", "limit ''"),
        ("?before=-1", "before '-1'"),
        ("?before=99999999999999999999", "before '9999"),
        ("?call_sid=CA1&call_sid=CA2", "call_sid has 2 values"),
        ("?call_sid=%00", "call_sid '\\x00' cannot be used"),
        ("?event_id=%ff", "event_id '\\ufffd' cannot be used"),
        ("?all=true", "'all' is not a filter"),
    ],
)
async def test_a_listing_that_is_asked_for_wrongly(tmp_path: Path, query: str, words: str) -> None:
    async with operating(tmp_path) as operator:
        assert words in (await operator.get(query, status=400))["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("replay", {}, 400, 'Name a filter (call_sid, endpoint, state, event_id, since, until), or say {"all": true}'),
        ("replay", {"all": False}, 400, "Name a filter"),
        ("replay", {"all": 1}, 400, "all must be true or false"),
        ("replay", {"state": "dead", "limit": "5"}, 400, "'limit' is not a filter"),
        ("replay", {"state": 5}, 400, "'state' must be a text or a list of texts"),
        ("replay", {"state": "dead", "call_sid": []}, 400, "call_sid has 0 values"),
        ("replay", {"event_id": ["evt_a"] * 1001}, 400, "event_id has 1001 values: expected 1 to 1000"),
        ("replay", {"event_id": ["evt_a"] * 10_000}, 413, "Maximum request body size 65536 exceeded"),
        ("replay", ["dead"], 400, "must be a JSON object"),
        ("erase", {}, 400, '{"call_sid": "CA..."}'),
        ("erase", {"call_sid": ["CA1"]}, 400, '{"call_sid": "CA..."}'),
        ("erase", {"call_sid": "CA1", "all": True}, 400, '{"call_sid": "CA..."} and nothing else'),
        ("erase", {"call_sid": "../../etc"}, 400, "call_sid '../../etc' cannot be used"),
        ("erase", {"call_sid": "CA*"}, 400, "call_sid 'CA*' cannot be used"),
    ],
)  # fmt: skip
async def test_an_action_that_is_asked_for_wrongly(
    tmp_path: Path, path: str, body: Any, status: int, words: str
) -> None:
    async with operating(tmp_path) as operator:
        assert words in (await operator.post(path, body, status=status))["error"]


async def test_a_million_ids_are_not_even_read(tmp_path: Path) -> None:
    body = json.dumps({"event_id": ["evt_a"] * 10**6}).encode()
    async with operating(tmp_path) as operator:
        url = f"{operator.setup.url}/api/deliveries/replay"
        headers = {"Content-Type": "application/json"}
        async with operator.session.post(url, data=io.BytesIO(body), headers=headers) as answer:
            assert answer.status == 413


@pytest.mark.usefixtures("hopeless")
async def test_what_was_given_up_is_delivered_again_with_the_same_id_and_bytes(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        receiver = operator.setup.receiver
        receiver.default = Answer(503)
        stored = await operator.publish(ONE, 3)
        records = await operator.until("dead", 3)
        assert {(record["last_status"], record["tries"]) for record in records} == {(503, 1)}
        assert "bridge-replay" not in receiver.received[0].headers
        receiver.received.clear()
        receiver.default = Answer()
        assert await operator.post("replay", {"state": ["dead"], "call_sid": ONE}) == {"replayed": 3}
        records = await operator.until("done", 3)
        assert all(record["replay"] for record in records)
        assert [(r.webhook_id, r.body) for r in receiver.received] == [(e.event_id, e.body) for e in stored]
        assert all(r.verified and r.headers["bridge-replay"] == "1" for r in receiver.received)
        assert await operator.post("replay", {"state": "dead", "since": "1h"}) == {"replayed": 0}


@pytest.mark.usefixtures("hopeless")
async def test_everything_is_replayed_only_if_it_is_meant(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        operator.setup.receiver.default = Answer(503)
        await operator.publish(ONE, 1)
        await operator.publish(TWO, 1)
        await operator.until("dead", 2)
        operator.setup.receiver.default = Answer()
        assert await operator.post("replay", {"all": True}) == {"replayed": 2}
        await operator.until("done", 2)


async def test_a_webhook_that_was_gone_is_back_after_a_replay(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        operator.setup.receiver.script(Answer(410))
        await operator.publish(ONE, 2)
        await operator.setup.receiver.wait_for(lambda r: r.answer.status == 410)
        assert await operator.post("replay", {"endpoint": endpoint_tag(operator.setup.receiver.url)}) == {
            "replayed": 2
        }
        await operator.until("done", 2)


@pytest.mark.usefixtures("hopeless")
async def test_erasing_leaves_no_text_in_the_store(tmp_path: Path) -> None:
    def kept() -> int:
        """Events whose text is somewhere in the outbox's files."""
        files = (tmp_path / "outbox").glob("outbox.sqlite3*")
        return sum(path.read_bytes().count(SAID.encode()) for path in files)

    async with operating(tmp_path) as operator:
        delivered = await operator.publish(ONE, 1)
        await operator.until("done", 1)
        operator.setup.receiver.default = Answer(400)
        await operator.publish(ONE, 1)
        await operator.until("dead", 1)
        operator.setup.receiver.default = Answer(410)
        await operator.publish(ONE, 1)
        await operator.setup.receiver.wait_for(lambda r: r.answer.status == 410)
        assert kept() >= 3
        assert await operator.post("erase", {"call_sid": ONE}) == {"erased": 3, "audio": False}
        records = (await operator.get(f"?call_sid={ONE}"))["deliveries"]
        assert [(record["kept"], record["state"]) for record in records] == [
            (False, "erased"),
            (False, "dead"),
            (False, "done"),
        ]
        assert records[-1]["sha256"] == hashlib.sha256(delivered[0].body).hexdigest()
        assert kept() == 0
        assert await operator.post("replay", {"call_sid": ONE}) == {"replayed": 0}
        assert await operator.post("erase", {"call_sid": ONE}) == {"erased": 0, "audio": False}


async def test_a_call_that_nothing_is_known_of_is_erased_already(tmp_path: Path) -> None:
    async with operating(tmp_path) as operator:
        assert await operator.post("erase", {"call_sid": TWO}) == {"erased": 0, "audio": False}


async def test_a_live_call_that_is_erased_is_transcribed_no_more(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, operating(tmp_path, whisper.url) as operator:
        setup = operator.setup
        speaking = asyncio.create_task(setup.call({"inbound": speech(range(200))}, Script()).run())
        final = await setup.receiver.wait_for_type("transcript.final")
        told = await operator.post("erase", {"call_sid": final.call_sid})
        assert told["erased"] >= 2
        assert told["audio"]
        assert len(setup.bridge.calls) == 0
        assert empty(tmp_path)
        heard = len(setup.receiver.received)
        # A second stream of the same call is not taken up, in this process or another.
        lease = await setup.bridge._services.outbox.own_call(final.call_sid, "another process", b"")
        assert lease.ended
        assert setup.bridge.calls.has_ended(final.call_sid)
        other = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        await setup.ended(other.call_sid)
        assert [r for r in setup.receiver.received[heard:] if r.call_sid == final.call_sid] == []
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def test_audio_of_a_call_that_another_process_erased_is_removed_here(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, operating(tmp_path, whisper.url) as operator:
        setup = operator.setup
        speaking = asyncio.create_task(setup.call({"inbound": speech(range(200))}, Script()).run())
        final = await setup.receiver.wait_for_type("transcript.final")
        await setup.bridge._services.outbox.erase(final.call_sid)  # as another process would
        async with asyncio.timeout(5):
            while len(setup.bridge.calls) or not empty(tmp_path):
                await asyncio.sleep(0.01)
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def test_a_call_is_erased_and_its_events_are_replayed_through_any_bridge_of_a_shared_store(
    tmp_path: Path, postgres_url: str
) -> None:
    here, there = ({"path": str(tmp_path / name)} for name in ("here", "there"))
    shared = {"url": postgres_url}
    async with (
        NumberedWhisper() as whisper,
        operating(tmp_path, whisper.url, outbox=shared, journal=here) as one,
        operating(tmp_path, whisper.url, outbox=shared, journal=there) as other,
    ):
        ended = await one.setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        await one.setup.ended(ended.call_sid)
        await other.until("done", 3)
        speaking = asyncio.create_task(one.setup.call({"inbound": speech(range(200))}, Script()).run())
        final = await one.setup.receiver.wait_for(
            lambda r: r.type == "transcript.final" and r.call_sid != ended.call_sid
        )
        assert (await other.post("erase", {"call_sid": final.call_sid}))["erased"] >= 2
        async with asyncio.timeout(5):
            while len(one.setup.bridge.calls) or not empty(tmp_path / "here"):
                await asyncio.sleep(0.01)
        left = (await one.get(f"?call_sid={final.call_sid}"))["deliveries"]
        assert [record["kept"] for record in left] == [False] * len(left)
        assert await other.post("replay", {"call_sid": ended.call_sid, "state": "done"}) == {"replayed": 3}
        await one.setup.receiver.wait_for(lambda r: r.type == "call.ended" and "bridge-replay" in r.headers)
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def test_a_call_that_was_erased_before_this_process_saw_it_leaves_no_audio(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, operating(tmp_path, whisper.url) as operator:
        setup = operator.setup
        await operator.publish(ONE, 1)
        await operator.until("done", 1)
        await operator.post("erase", {"call_sid": ONE})
        call = setup.call({"inbound": speech(range(200))}, Script())
        call.report.call_sid = ONE
        speaking = asyncio.create_task(call.run())
        async with asyncio.timeout(5):
            while not call.report.streams or call.report.streams[0].close_code is None:
                await asyncio.sleep(0.01)
        assert call.report.streams[0].close_code == 1008
        assert empty(tmp_path)
        assert {r.type for r in setup.receiver.received} == {"call.dtmf"}
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)


async def test_an_outbox_that_is_down_or_hangs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with operating(tmp_path) as operator:
        outbox = operator.setup.bridge._services.outbox

        async def hang(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(module, "OUTBOX_S", 0.05)
        for name in ("records", "replay", "erase"):
            monkeypatch.setattr(outbox, name, hang)
        asked = (
            operator.get(status=503),
            operator.post("replay", {"all": True}, status=503),
            operator.post("erase", {"call_sid": ONE}, status=503),
        )
        for told in await asyncio.gather(*asked):
            assert "the outbox did not answer" in told["error"]
        monkeypatch.undo()
        await outbox.close()
        assert (await operator.get(status=503))["error"]
        assert (await operator.post("erase", {"call_sid": ONE}, status=503))["error"]


async def test_actions_are_logged_without_what_was_said_or_secrets(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with operating(tmp_path) as operator:
        (stored,) = await operator.publish(ONE, 1, "?key=secret")
        await operator.until("done", 1)
        await operator.post("replay", {"endpoint": stored.endpoint, "state": "dead", "since": "2h"})
        await operator.post("erase", {"call_sid": ONE})
    log = "".join(capfd.readouterr())
    assert "deliveries_replayed" in log
    assert endpoint_tag(stored.endpoint) in log
    assert "call_erased" in log
    assert ONE in log
    for secret in ("secret", SAID, TOKEN):
        assert secret not in log
