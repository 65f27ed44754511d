"""A lane in work: what it does when the outbox, its lease or its endpoint are not as they were."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from bridge.outbox.lease import Fenced, LaneLease
from bridge.outbox.outbox import OutboxDown, Selection
from bridge.webhook import lane as lane_module
from bridge.webhook.breaker import Breaker
from bridge.webhook.lane import Lane, Means
from bridge.webhook.sender import Sender


class Bench:
    """One lane that is to be worked off, with what it works with."""

    def __init__(self, line: Any, sender: Sender, lease: LaneLease) -> None:
        self.means = Means(line.outbox, sender, clock=line.clock, jitter=lambda: 0.5)
        self.breaker = Breaker(100)
        self.lease = lease
        self.lease_s = 15.0

    async def work(self) -> None:
        now = self.means.monotonic()
        self.breaker.take(self.lease.lane, now)
        await Lane(self.lease, now + self.lease_s, self.breaker, self.means).work()


@pytest.fixture
async def bench(line: Any, receiver: Any) -> AsyncIterator[Bench]:
    """The lane of a call with three events."""
    await line.publish("CA1", receiver.url(), 1, 2, 3)
    (lease,) = await line.outbox.claim("test", 10, 15.0)
    async with Sender(lambda _: line.secrets, line.targets) as sender:
        yield Bench(line, sender, lease)


def sequences(receiver: Any) -> list[int]:
    return [int(received.id.rpartition("_")[2]) for received in receiver.received]


async def test_a_lane_is_worked_off_and_given_back(bench: Bench, line: Any, receiver: Any) -> None:
    await bench.work()
    assert sequences(receiver) == [1, 2, 3]
    assert (await line.outbox.stats()).pending == 0
    with pytest.raises(Fenced):
        await line.outbox.peek(bench.lease)


async def test_a_lane_that_finds_its_endpoint_down_between_two_events_is_given_back(
    bench: Bench, line: Any, receiver: Any
) -> None:
    async def opened_by_others(_: Any) -> web.StreamResponse:
        for n in range(10):
            bench.breaker.take(f"other{n}", 0.0)
            bench.breaker.failed(f"other{n}", 0.0)
        return web.Response()

    receiver.answers["/hook"] = opened_by_others
    await bench.work()
    assert sequences(receiver) == [1]
    assert await line.outbox.next_due() == 0
    stats = await line.outbox.stats()
    assert (stats.pending, stats.lanes_in_backoff) == (2, 0)


async def test_what_was_accepted_is_told_to_an_outbox_that_was_down_as_long_as_the_lease_lasts(
    bench: Bench, receiver: Any, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "AGAIN_S", 0.01)
    ack, left = line.outbox.ack, [3]

    async def down(*args: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OutboxDown("The outbox is away.")
        return await ack(*args)

    monkeypatch.setattr(line.outbox, "ack", down)
    await bench.work()
    assert sequences(receiver) == [1, 2, 3], "no duplicate"
    assert (await line.outbox.stats()).pending == 0


async def test_when_the_lease_ends_meanwhile_the_lane_is_left_to_it(
    bench: Bench, receiver: Any, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "AGAIN_S", 0.01)

    async def down(*_: Any) -> None:
        raise OutboxDown("The outbox is away.")

    monkeypatch.setattr(line.outbox, "ack", down)
    bench.lease_s = 0.05
    with capture_logs() as logs:
        await asyncio.wait_for(bench.work(), 5)
    assert sequences(receiver) == [1]
    assert [entry["event"] for entry in logs] == ["lane_left"]


async def test_an_ack_whose_answer_was_lost_has_counted(
    bench: Bench, receiver: Any, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "AGAIN_S", 0.01)
    ack, lost = line.outbox.ack, [1]

    async def unheard(*args: Any) -> Any:
        more = await ack(*args)
        if lost:
            lost.clear()
            raise OutboxDown("The outbox did not answer.")
        return more

    monkeypatch.setattr(line.outbox, "ack", unheard)
    with capture_logs() as logs:
        await bench.work()
    assert sequences(receiver) == [1, 2, 3]
    assert logs == []


async def test_the_last_ack_of_a_lane_has_counted_too_when_its_answer_was_lost(
    bench: Bench, receiver: Any, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "AGAIN_S", 0.01)
    ack = line.outbox.ack

    async def unheard_once(lane: Any, position: int) -> Any:
        more = await ack(lane, position)
        if not more:
            raise OutboxDown("The outbox did not answer.")
        return more

    monkeypatch.setattr(line.outbox, "ack", unheard_once)
    with capture_logs() as logs:
        await bench.work()
    assert sequences(receiver) == [1, 2, 3]
    assert logs == []
    assert (await line.outbox.stats()).pending == 0


async def test_a_lane_whose_lease_was_over_before_it_came_is_given_back(
    bench: Bench, line: Any, receiver: Any
) -> None:
    bench.lease_s = 0.0
    await bench.work()
    assert receiver.received == []
    assert await line.outbox.next_due() == 0


@pytest.mark.parametrize("outage", [True, False])
async def test_a_lane_with_a_newer_owner_is_worked_on_no_more(
    bench: Bench, receiver: Any, line: Any, monkeypatch: pytest.MonkeyPatch, outage: bool
) -> None:
    monkeypatch.setattr(lane_module, "AGAIN_S", 0.01)
    before = REGISTRY.get_sample_value("bridge_webhook_lanes_total", {"what": "fenced"}) or 0.0
    ack, down = line.outbox.ack, [outage]

    async def late(*args: Any) -> Any:
        if down[0]:
            down[0] = False
            raise OutboxDown("The outbox is away.")
        return await ack(*args)

    async def taken_over(_: Any) -> web.StreamResponse:
        line.advance(16)
        assert await line.outbox.claim("another", 10, 15.0)
        return web.Response()

    monkeypatch.setattr(line.outbox, "ack", late)
    receiver.answers["/hook"] = taken_over
    with capture_logs() as logs:
        await bench.work()
    assert sequences(receiver) == [1]
    with pytest.raises(Fenced):
        await line.outbox.peek(bench.lease)
    # After an outage it looks like an ack that counted and gave the lane back.
    assert [entry["event"] for entry in logs] == ([] if outage else ["lane_fenced"])
    after = REGISTRY.get_sample_value("bridge_webhook_lanes_total", {"what": "fenced"}) or 0.0
    assert after == before + (not outage)


async def test_a_success_that_makes_room_wakes_the_pump(
    bench: Bench, line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(39):
        bench.breaker.take(f"other{n}", 0.0)
    ack, woken = line.outbox.ack, []

    async def observed(*args: Any) -> Any:
        woken.append(line.outbox.wake.is_set())
        return await ack(*args)

    monkeypatch.setattr(line.outbox, "ack", observed)
    line.outbox.wake.clear()
    await bench.work()
    assert woken == [True] * 3
    assert sequences(receiver) == [1, 2, 3]


async def test_what_is_delivered_again_says_so_and_has_no_delay(
    bench: Bench, line: Any, receiver: Any
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("bridge_webhook_added_seconds_count") or 0.0

    before = counted()
    await bench.work()
    assert counted() == before + 3
    assert await line.outbox.replay(Selection(call_sid="CA1", states=frozenset({"done"}))) == 3
    (bench.lease,) = await line.outbox.claim("test", 10, 15.0)
    await bench.work()
    assert counted() == before + 3
    assert sequences(receiver) == [1, 2, 3, 1, 2, 3]
    assert [received.headers.get("bridge-replay") for received in receiver.received] == [None] * 3 + ["1"] * 3
    assert [received.body for received in receiver.received[3:]] == [
        received.body for received in receiver.received[:3]
    ]


def opened(bench: Bench) -> None:
    """Let other lanes open the breaker; the next one taken up may try."""
    since = bench.means.monotonic() - 61
    for n in range(20):
        bench.breaker.take(f"other{n}", since)
        bench.breaker.failed(f"other{n}", since)
        bench.breaker.put_down(f"other{n}")
    assert bench.breaker.is_open


@pytest.mark.parametrize(
    ("status", "up"), [(400, True), (413, True), (422, True), (404, False), (500, False)]
)
async def test_a_refusal_of_the_event_proves_that_the_endpoint_is_up_and_the_lane_waits_all_the_same(
    bench: Bench, line: Any, receiver: Any, status: int, up: bool
) -> None:
    receiver.status("/hook", status)
    opened(bench)
    await bench.work()
    assert bench.breaker.is_open is not up
    assert sequences(receiver) == [1]
    stats = await line.outbox.stats()
    assert (stats.pending, stats.lanes_in_backoff) == (3, 1)


async def test_an_event_that_fails_again_says_less_of_its_endpoint(
    bench: Bench, line: Any, receiver: Any
) -> None:
    receiver.status("/hook", 500, 500)
    bench.means = replace(bench.means, monotonic=lambda: time.monotonic() + line.ahead)
    opened(bench)
    for wait_s in (10, 5):
        await bench.work()
        now = bench.means.monotonic()
        at = bench.breaker.moves_at(now)
        assert at is not None
        assert at - now == pytest.approx(wait_s, abs=1)
        line.advance(10)
        if wait_s == 10:
            (bench.lease,) = await line.outbox.claim("test", 10, 15.0)


async def outlived(bench: Bench, line: Any, receiver: Any) -> None:
    """Three events that are 73 hours old, as the outage is, and one that is new; the breaker is open."""
    bench.means = replace(bench.means, monotonic=lambda: time.monotonic() + line.ahead)
    await bench.work()
    line.advance(73 * 3600)
    await line.publish("CA1", receiver.url(), 4)
    opened(bench)
    (bench.lease,) = await line.outbox.claim("test", 10, 15.0)
    await bench.work()
    assert sequences(receiver) == [1, 1]
    stats = await line.outbox.stats()
    assert (stats.pending, stats.dead, stats.lanes_in_backoff) == (3, 1, 0), "one failure was enough"
    line.advance(61)
    (bench.lease,) = await line.outbox.claim("test", 10, 15.0)
    await bench.work()


async def test_of_an_endpoint_that_is_down_the_old_events_go_together_after_two_and_young_ones_stay(
    bench: Bench, line: Any, receiver: Any
) -> None:
    receiver.status("/hook", *[503] * 10)
    await outlived(bench, line, receiver)
    assert sequences(receiver) == [1, 1, 2]
    dead = await line.outbox.records(Selection(states=frozenset({"dead"})), 10)
    assert [(one.sequence, one.last_status, one.last_error) for one in reversed(dead)] == [
        (1, 503, "status 503"),
        (2, 503, "status 503"),
        (3, None, "not sent, as the one before it failed: status 503"),
    ]
    (young,) = await line.outbox.records(Selection(states=frozenset({"pending"})), 10)
    assert young.sequence == 4
    assert await line.outbox.next_due() == 0


async def test_an_endpoint_that_is_back_meanwhile_gets_the_old_events(
    bench: Bench, line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury = line.outbox.bury

    async def others_found_it_back(lease: Any, position: int, *why: Any) -> None:
        await bury(lease, position, *why)
        if position == 2:
            now = bench.means.monotonic() + 61
            bench.breaker.take("other", now)
            bench.breaker.succeeded("other", now)

    monkeypatch.setattr(line.outbox, "bury", others_found_it_back)
    receiver.status("/hook", 503, 503, 503)
    await outlived(bench, line, receiver)
    assert sequences(receiver) == [1, 1, 2, 3, 4]
    stats = await line.outbox.stats()
    assert (stats.pending, stats.dead) == (0, 2)


async def test_an_event_at_fault_takes_no_other_with_it_though_the_breaker_is_open(
    bench: Bench, line: Any, receiver: Any
) -> None:
    receiver.status("/hook", 503, 503)
    await outlived(bench, line, receiver)
    assert sequences(receiver) == [1, 1, 2, 3, 4]
    stats = await line.outbox.stats()
    assert (stats.pending, stats.dead) == (0, 1)
