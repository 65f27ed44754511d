"""One signed POST: what it carries, what each answer means, how long anything may take."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from bridge import __version__
from bridge.webhook.sender import Outcome, Sender
from bridge.webhook.target import Targets

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
OTHER = "whsec_" + "QUJD" * 8
BODY = '{"type":"call.dtmf","é":"ü"}'.encode()
LOOPBACK = Targets([ipaddress.ip_network("127.0.0.0/8")])


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    async with Sender(lambda _: [SECRET], LOOPBACK, total_s=1.0) as sender:
        yield sender


async def test_what_a_post_carries(sender: Sender, receiver: Any) -> None:
    outcome = await sender.post(receiver.url("/hook?key=1%2F2"), "evt_1", BODY)
    assert outcome == Outcome(status=204)
    assert outcome.accepted
    (received,) = receiver.received
    assert received.body == BODY
    headers = received.headers
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"whisper-bridge/{__version__}"
    assert headers["webhook-id"] == "evt_1"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    assert headers["content-length"] == str(len(BODY))
    assert "cookie" not in headers
    assert "bridge-replay" not in headers


async def test_what_is_sent_again_on_request_says_so(sender: Sender, receiver: Any) -> None:
    assert (await sender.post(receiver.url(), "evt_1", BODY, replay=True)).accepted
    (received,) = receiver.received
    assert received.headers["bridge-replay"] == "1"


async def test_the_signature_is_standard_webhooks_own() -> None:
    body = '{"type":"transcript.final","timestamp":"2026-08-22T10:00:00.000Z","data":{"call_sid":"CA00000000000000000000000000000001","text":"hello"}}'
    sender = Sender(lambda _: [SECRET], LOOPBACK, clock=lambda: 1_787_392_800.9)
    headers = sender._sign("https://example.com/", "msg_01J5ZK3T9Q8W7V6U5T4S3R2Q1P", body.encode())
    assert headers == {
        "webhook-id": "msg_01J5ZK3T9Q8W7V6U5T4S3R2Q1P",
        "webhook-timestamp": "1787392800",
        "webhook-signature": "v1,oF6d0J7NY0WQPt09KHc7bi0Ru2fqhakyClsXlvSa3do=",
    }


async def test_every_attempt_is_signed_anew(receiver: Any) -> None:
    moments = iter([time.time(), time.time() + 2])
    async with Sender(lambda _: [SECRET], LOOPBACK, clock=lambda: next(moments)) as sender:
        for _ in range(2):
            assert (await sender.post(receiver.url(), "evt_1", BODY)).accepted
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert int(second.headers["webhook-timestamp"]) - int(first.headers["webhook-timestamp"]) == 2
    assert second.headers["webhook-signature"] != first.headers["webhook-signature"]


async def test_while_secrets_are_rotated_every_one_of_them_signs(receiver: Any) -> None:
    secrets = [OTHER, SECRET]
    async with Sender(lambda _: secrets, LOOPBACK) as sender:
        await sender.post(receiver.url(), "evt_1", BODY)
        receiver.secret = OTHER
        await sender.post(receiver.url(), "evt_2", BODY)
        secrets.remove(SECRET)
        await sender.post(receiver.url(), "evt_3", BODY)
    signatures = [received.headers["webhook-signature"].split(" ") for received in receiver.received]
    assert [len(of_one) for of_one in signatures] == [2, 2, 1]
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(receiver.received[-1].body, receiver.received[-1].headers)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_is_accepted(sender: Sender, receiver: Any, status: int) -> None:
    receiver.status("/hook", status)
    assert await sender.post(receiver.url(), "evt_1", BODY) == Outcome(status=status)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_failures_and_not_followed(sender: Sender, receiver: Any, status: int) -> None:
    receiver.status("/hook", status, headers={"location": receiver.url("/elsewhere")})
    outcome = await sender.post(receiver.url(), "evt_1", BODY)
    assert (outcome.accepted, outcome.status, outcome.error) == (False, status, f"status {status}")
    assert receiver.at("/elsewhere") == []


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 429, 500, 503])
async def test_other_answers_are_failures(sender: Sender, receiver: Any, status: int) -> None:
    receiver.status("/hook", status)
    outcome = await sender.post(receiver.url(), "evt_1", BODY)
    assert outcome == Outcome(status, f"status {status}", throttled=status == 429)


async def test_retry_after_is_read(sender: Sender, receiver: Any) -> None:
    receiver.status("/hook", 503, headers={"retry-after": "17"})
    assert (await sender.post(receiver.url(), "evt_1", BODY)).retry_after_s == 17
    at = datetime.fromtimestamp(time.time() + 60, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    receiver.status("/hook", 503, headers={"retry-after": at})
    assert (await sender.post(receiver.url(), "evt_2", BODY)).retry_after_s == pytest.approx(60, abs=2)
    receiver.status("/hook", 503, headers={"retry-after": "when I am well again"})
    assert (await sender.post(receiver.url(), "evt_3", BODY)).retry_after_s is None


async def test_a_receiver_that_never_answers_is_a_timeout(sender: Sender, receiver: Any) -> None:
    async def never(_: Any) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    receiver.answers["/hook"] = never
    assert await sender.post(receiver.url(), "evt_1", BODY) == Outcome(error="timeout", throttled=True)


async def test_a_long_or_slow_body_does_not_change_what_the_status_said(receiver: Any) -> None:
    async def endless(received: Any) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(received.request)
        while True:
            await answer.write(b"x" * 65536)

    async def dripping(received: Any) -> web.StreamResponse:
        answer = web.StreamResponse(status=500)
        await answer.prepare(received.request)
        while True:
            await answer.write(b"x")
            await asyncio.sleep(0.05)

    async with Sender(lambda _: [SECRET], LOOPBACK) as sender:
        for path, answer, status in (("/endless", endless, 200), ("/dripping", dripping, 500)):
            receiver.answers[path] = answer
            outcome = await sender.post(receiver.url(path), "evt_1", BODY)
            assert outcome.status == status


async def test_a_connection_is_used_again(sender: Sender, receiver: Any) -> None:
    receiver.status("/hook", 200)
    ports = set()

    async def answer(received: Any) -> web.StreamResponse:
        ports.add(received.request.transport.get_extra_info("peername")[1])
        return web.Response(text="thank you")

    receiver.answers["/hook"] = answer
    for n in range(3):
        assert (await sender.post(receiver.url(), f"evt_{n}", BODY)).accepted
    assert len(ports) == 1


async def _serve_bytes(answer: bytes) -> tuple[asyncio.Server, int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50,
        b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_an_unreadable_answer_is_a_failure(sender: Sender, answer: bytes) -> None:
    server, port = await _serve_bytes(answer)
    outcome = await sender.post(f"http://127.0.0.1:{port}/", "evt_1", BODY)
    assert not outcome.accepted
    assert outcome.error in {"connection lost or answer unreadable", "cannot be sent"}
    server.close()
    await server.wait_closed()


async def test_a_body_cut_short_does_not_undo_a_2xx(sender: Sender) -> None:
    server, port = await _serve_bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort")
    assert (await sender.post(f"http://127.0.0.1:{port}/", "evt_1", BODY)).accepted
    server.close()
    await server.wait_closed()


async def test_nobody_listening_is_a_failure(sender: Sender) -> None:
    server, port = await _serve_bytes(b"")
    server.close()
    await server.wait_closed()
    outcome = await sender.post(f"http://127.0.0.1:{port}/secret-path", "evt_1", BODY)
    assert outcome == Outcome(error="connection refused or unreachable")


async def test_tls_that_is_none_is_a_failure(sender: Sender, receiver: Any) -> None:
    outcome = await sender.post(f"https://127.0.0.1:{receiver.port}/", "evt_1", BODY)
    assert outcome.status is None
    assert not outcome.accepted


async def test_without_a_good_secret_nothing_is_sent(receiver: Any) -> None:
    for secrets in ([], ["whsec_short"], ["nonsense"]):
        async with Sender(lambda _, secrets=secrets: secrets, LOOPBACK) as sender:  # type: ignore[misc]  # a default binds the loop's value
            outcome = await sender.post(receiver.url(), "evt_1", BODY)
        assert "webhook secret" in outcome.error
        assert "whsec_short" not in outcome.error
    assert receiver.received == []


async def test_a_refused_target_is_told_in_a_sentence(sender: Sender) -> None:
    outcome = await sender.post("http://10.0.0.1/hook?key=secret", "evt_1", BODY)
    assert outcome.error.startswith("The webhook target 10.0.0.1 is not in [webhook] allow_private_networks")
    assert "secret" not in outcome.error
