"""Partials: the latest or nothing, one at a time, never in the way of stored events."""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY

from bridge.webhook.partials import Partials
from bridge.webhook.target import Targets

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
LOOPBACK = Targets([ipaddress.ip_network("127.0.0.0/8")])


def count(result: str) -> float:
    return REGISTRY.get_sample_value("bridge_webhook_partials_total", {"result": result}) or 0.0


@pytest.fixture
async def partials() -> AsyncIterator[Partials]:
    partials = Partials(lambda _: [SECRET], LOOPBACK, slots=3)
    await partials.start()
    yield partials
    await partials.close()


class Gate:
    """Holds answers back until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, _: Any) -> web.StreamResponse:
        await self.open.wait()
        return web.Response()


async def idle(partials: Partials) -> None:
    tasks = [slot.task for slot in partials._slots.values() if slot.task is not None]
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)


async def test_a_partial_is_sent_signed_with_a_fresh_id(partials: Partials, receiver: Any) -> None:
    for n in range(2):
        partials.offer(receiver.url(), "CA1", "inbound", b'{"n": %d}' % n)
        await receiver.count(n + 1)
        await idle(partials)
    assert [received.body for received in receiver.received] == [b'{"n": 0}', b'{"n": 1}']
    first, second = receiver.ids()
    assert first != second
    assert all(re.fullmatch(r"evt_[a-z2-7]{26}", one) for one in (first, second))


async def test_while_one_is_under_way_only_the_latest_waits(partials: Partials, receiver: Any) -> None:
    gate = receiver.answers["/hook"] = Gate()
    replaced = count("replaced")
    for n in range(1, 6):
        partials.offer(receiver.url(), "CA1", "inbound", b"%d" % n)
        if n == 1:
            await receiver.count(1)
    gate.open.set()
    await idle(partials)
    assert [received.body for received in receiver.received] == [b"1", b"5"]
    assert count("replaced") - replaced == 3


async def test_each_track_has_a_slot_of_its_own(partials: Partials, receiver: Any) -> None:
    gate = receiver.answers["/hook"] = Gate()
    partials.offer(receiver.url(), "CA1", "inbound", b"1")
    partials.offer(receiver.url(), "CA1", "outbound", b"2")
    partials.offer(receiver.url("/other"), "CA1", "inbound", b"3")
    await receiver.until(lambda: len(receiver.received) == 3)
    gate.open.set()
    await idle(partials)


async def test_a_final_drops_what_waits(partials: Partials, receiver: Any) -> None:
    gate = receiver.answers["/hook"] = Gate()
    partials.offer(receiver.url(), "CA1", "inbound", b"1")
    await receiver.count(1)
    partials.offer(receiver.url(), "CA1", "inbound", b"2")
    partials.drop(receiver.url(), "CA1", "inbound")
    partials.drop(receiver.url(), "CA1", "inbound")
    partials.drop(receiver.url(), "CA2", "inbound")
    gate.open.set()
    await idle(partials)
    assert [received.body for received in receiver.received] == [b"1"]


async def test_a_failure_is_not_retried(partials: Partials, receiver: Any) -> None:
    receiver.status("/hook", 500)
    failed = count("failed")
    partials.offer(receiver.url(), "CA1", "inbound", b"1")
    await idle(partials)
    partials.offer("http://10.0.0.1/", "CA1", "inbound", b"refused")
    await idle(partials)
    assert len(receiver.received) == 1
    assert count("failed") - failed == 2


async def test_beyond_the_slots_partials_are_dropped(partials: Partials, receiver: Any) -> None:
    gate = receiver.answers["/hook"] = Gate()
    dropped = count("dropped")
    for n in range(5):
        partials.offer(receiver.url(), f"CA{n}", "inbound", b"1")
    await receiver.count(3)
    assert count("dropped") - dropped == 2
    gate.open.set()
    await idle(partials)
    assert len(receiver.received) == 3


async def test_close_ends_what_is_under_way_and_offers_after_it_are_forgotten(receiver: Any) -> None:
    receiver.answers["/hook"] = Gate()
    partials = Partials(lambda _: [SECRET], LOOPBACK)
    await partials.start()
    partials.offer(receiver.url(), "CA1", "inbound", b"1")
    await receiver.count(1)
    partials.offer(receiver.url(), "CA2", "inbound", b"not even begun")
    async with asyncio.timeout(1):
        await partials.close()
    partials.offer(receiver.url(), "CA1", "inbound", b"2")
    assert len(receiver.received) <= 2
