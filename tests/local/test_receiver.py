import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from standardwebhooks.webhooks import Webhook

from bridge.errors import BridgeError
from bridge.local.receiver import Answer, Received, Receiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
BODY = b'{"type":"call.started","timestamp":"2026-08-22T10:00:00Z","data":{"call_sid":"CA1","sequence":1}}'


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        yield session


def signed(
    body: bytes = BODY, secret: str = SECRET, at: datetime | None = None, id_: str = "msg_1"
) -> dict[str, str]:
    at = at or datetime.now(UTC)
    return {
        "webhook-id": id_,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(id_, at, body.decode()),
        "content-type": "application/json",
    }


async def post(
    client: aiohttp.ClientSession,
    receiver: Receiver,
    body: bytes = BODY,
    headers: dict[str, str] | None = None,
) -> aiohttp.ClientResponse:
    async with client.post(
        receiver.url, data=body, headers=signed(body) if headers is None else headers
    ) as answer:
        return answer


async def test_a_signed_event_is_recorded_and_accepted(client: aiohttp.ClientSession) -> None:
    seen: list[Received] = []
    async with Receiver(SECRET, on_event=seen.append) as receiver:
        answer = await post(client, receiver)

        (received,) = receiver.received
        assert answer.status == 200
        assert received.verified
        assert received.accepted
        assert (received.webhook_id, received.type, received.call_sid) == ("msg_1", "call.started", "CA1")
        assert received.body == BODY
        assert received.received_at == pytest.approx(time.time(), abs=5)
        assert seen == [received]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"webhook-id": "msg_1"},
        signed(secret=OTHER),
        signed(body=b"{}"),
        signed(at=datetime.now(UTC) - timedelta(minutes=6)),
        signed() | {"webhook-id": "msg_2"},
        signed() | {"webhook-signature": "v1,not base64!"},
        signed() | {"webhook-signature": "garbage"},
        signed() | {"webhook-timestamp": "yesterday"},
    ],
)
async def test_anything_else_is_recorded_as_unverified_and_refused(
    client: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with Receiver(SECRET) as receiver:
        answer = await post(client, receiver, headers=headers)

        assert answer.status == 401
        assert [one.verified for one in receiver.received] == [False]


async def test_while_rotating_any_secret_will_do(client: aiohttp.ClientSession) -> None:
    async with Receiver([OTHER, SECRET]) as receiver:
        assert (await post(client, receiver)).status == 200


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[]", b"{", b'{"data":[]}'])
async def test_a_body_that_is_no_event(client: aiohttp.ClientSession, body: bytes) -> None:
    async with Receiver(SECRET) as receiver:
        await post(client, receiver, body=body, headers=signed())

        (received,) = receiver.received
        assert (received.type, received.call_sid, received.data, received.verified) == ("", "", {}, False)


async def test_scripted_answers_are_given_in_turn_and_then_the_default(client: aiohttp.ClientSession) -> None:
    async with Receiver(SECRET) as receiver:
        receiver.script(Answer(503, retry_after="7"), Answer(410))
        receiver.default = Answer(204)

        answers = [await post(client, receiver) for _ in range(3)]

        assert [answer.status for answer in answers] == [503, 410, 204]
        assert answers[0].headers["Retry-After"] == "7"
        assert [one.accepted for one in receiver.received] == [False, False, True]


async def test_a_script_for_one_call_leaves_the_others_alone(client: aiohttp.ClientSession) -> None:
    other = BODY.replace(b"CA1", b"CA2")
    async with Receiver(SECRET) as receiver:
        receiver.script(Answer(500), call_sid="CA2")

        assert (await post(client, receiver)).status == 200
        assert (await post(client, receiver, other)).status == 500
        assert (await post(client, receiver, other)).status == 200


async def test_a_delay(client: aiohttp.ClientSession) -> None:
    async with Receiver(SECRET) as receiver:
        receiver.script(Answer(delay_s=0.1))
        begun = time.monotonic()

        await post(client, receiver)

        assert time.monotonic() - begun >= 0.1


async def test_a_dropped_connection(client: aiohttp.ClientSession) -> None:
    async with Receiver(SECRET) as receiver:
        receiver.script(Answer(manner="drop"))

        with pytest.raises(aiohttp.ClientConnectionError):
            await post(client, receiver)
        assert not receiver.received[0].accepted


async def test_a_hanging_answer_ends_with_the_receiver(client: aiohttp.ClientSession) -> None:
    async with Receiver(SECRET) as receiver:
        receiver.script(Answer(manner="hang"))
        posting = asyncio.create_task(post(client, receiver))
        await receiver.wait_for(lambda one: one.type == "call.started")
        assert not posting.done()

    with pytest.raises(aiohttp.ClientConnectionError):
        await posting


async def test_waiting_for_what_has_come_and_for_what_will(client: aiohttp.ClientSession) -> None:
    ended = BODY.replace(b"call.started", b"call.ended")
    async with Receiver(SECRET) as receiver:
        await post(client, receiver)
        assert (await receiver.wait_for(lambda one: one.type == "call.started")).body == BODY
        waiting = asyncio.create_task(receiver.wait_for_type("call.ended", call_sid="CA1"))
        await post(client, receiver, ended)
        assert (await waiting).body == ended
        with pytest.raises(TimeoutError):
            await receiver.wait_for(lambda _: False, timeout=0.05)


async def test_a_second_opening_has_the_same_address(client: aiohttp.ClientSession) -> None:
    receiver = Receiver(SECRET)
    async with receiver:
        url = receiver.url
    async with receiver:
        assert receiver.url == url
        assert (await post(client, receiver)).status == 200


async def test_a_port_that_is_taken_is_one_sentence() -> None:
    async with Receiver(SECRET) as receiver:
        port = int(receiver.url.rsplit(":", 1)[1].rstrip("/"))
        with pytest.raises(BridgeError, match=f"cannot receive webhooks at 127.0.0.1:{port}"):
            async with Receiver(SECRET, port=port):
                raise AssertionError
