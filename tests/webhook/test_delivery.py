"""The pump: in order, once accepted never again, nobody held up by another, nothing lost at a stop or a kill."""

import asyncio
import itertools
import random
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from bridge.outbox.outbox import OutboxDown, Outgoing, Selection
from bridge.outbox.sqlite import Sqlite
from bridge.webhook import delivery as delivery_module
from bridge.webhook.breaker import FAILED_LANES, UNPROVEN

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def ids(call: str, *sequences: int) -> list[str]:
    return [f"evt_{call}_{n}" for n in sequences]


async def hang(_: Any) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def test_events_are_delivered_in_order_and_each_once(line: Any, receiver: Any) -> None:
    await line.start()
    await line.publish("CA1", receiver.url(), 1)
    await receiver.count(1)
    await line.publish("CA1", receiver.url(), *range(2, 31))
    await line.settled()
    assert receiver.ids() == ids("CA1", *range(1, 31))


async def test_an_event_of_a_healthy_lane_is_sent_without_asking_for_it(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    await line.start()
    await line.until_idle()
    for name in ("claim", "peek", "next_due", "release"):
        monkeypatch.setattr(line.outbox, name, lambda *_, name=name, **__: asked.append(name))
    for n in (1, 2, 3):
        await line.publish("CA1", receiver.url(), n)
        await line.settled()
    assert receiver.ids() == ids("CA1", 1, 2, 3)
    assert asked == []


async def test_an_event_published_while_another_one_of_its_lane_is_sent_is_sent_after_it(
    line: Any, receiver: Any
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def wait(_: Any) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return web.Response()

    receiver.answers["/hook"] = wait
    await line.start()
    await line.until_idle()
    await line.publish("CA1", receiver.url(), 1)
    await arrived.wait()
    await line.publish("CA1", receiver.url(), 2)
    await line.publish("CA1", receiver.url(), 3)
    assert line.delivery._breakers[receiver.url()].working == 1
    go_on.set()
    await line.settled()
    assert receiver.ids() == ids("CA1", 1, 2, 3)


async def test_a_new_event_takes_no_place_from_lanes_that_wait_for_one(line: Any, receiver: Any) -> None:
    go_on = asyncio.Event()

    async def wait(_: Any) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    receiver.answers["/hook"] = wait
    await line.start(per_endpoint=2)
    await line.until_idle()
    for n in range(1, 7):
        await line.publish(f"CA{n}", receiver.url(), 1)
        line.advance(0.1)
    await receiver.count(2)
    await line.until(lambda: answered(receiver.url() in line.delivery._full))
    go_on.set()
    await line.settled()
    assert receiver.ids() == [f"evt_CA{n}_1" for n in range(1, 7)], "the longest due first"


async def test_what_the_pump_has_not_seen_yet_comes_before_a_new_event(line: Any, receiver: Any) -> None:
    await line.start()
    await line.until_idle()
    endpoint, now = receiver.url(), time.monotonic()
    line.outbox.wake.set()  # somebody has stored an event; the pump runs when this task waits
    assert not line.delivery._keep_place("CA1", endpoint, now)
    await line.until_idle()
    assert line.delivery._keep_place("CA1", endpoint, now)


async def test_while_the_pump_looks_for_due_lanes_a_new_event_waits_for_it(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await line.start()
    await line.until_idle()
    claim, publish = line.outbox.claim, line.outbox.publish
    looks, go_on, deliverers = asyncio.Event(), asyncio.Event(), []

    async def slow(*args: Any, **kwargs: Any) -> Any:
        looks.set()
        await go_on.wait()
        return await claim(*args, **kwargs)

    async def observed(*args: Any, deliverer: str = "", **kwargs: Any) -> Any:
        deliverers.append(deliverer)
        return await publish(*args, deliverer=deliverer, **kwargs)

    monkeypatch.setattr(line.outbox, "claim", slow)
    monkeypatch.setattr(line.outbox, "publish", observed)
    line.outbox.wake.set()
    await looks.wait()
    await line.publish("CA1", receiver.url(), 1)
    go_on.set()
    await line.settled()
    await line.until_idle()
    await line.publish("CA2", receiver.url(), 1)
    await line.settled()
    assert deliverers == ["", "bridge"]


async def answered(value: bool) -> bool:
    return value


@pytest.mark.parametrize("heard", [True, False], ids=["answered", "not yet answered"])
async def test_the_event_of_a_publisher_that_gave_up_is_sent_at_once(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    await line.start()
    await line.until_idle()
    publish, asked, go_on = line.outbox.publish, asyncio.Event(), asyncio.Event()

    async def slow(*args: Any, **kwargs: Any) -> Any:
        leases = await publish(*args, **kwargs) if heard else []
        asked.set()
        await go_on.wait()
        return leases if heard else await publish(*args, **kwargs)

    monkeypatch.setattr(line.outbox, "publish", slow)
    task = asyncio.create_task(line.publish("CA1", receiver.url(), 1))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await receiver.count(1)  # sooner than the lease ends
    await line.settled()
    assert receiver.ids() == ids("CA1", 1)
    await line.until_idle()
    assert not line.delivery._holders


async def test_who_gave_up_is_not_told_what_went_wrong_and_the_place_is_free(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await line.start()
    await line.until_idle()
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def down(*_: Any, **__: Any) -> Any:
        asked.set()
        await go_on.wait()
        raise OutboxDown("The outbox's disk is full: make room on it.")

    monkeypatch.setattr(line.outbox, "publish", down)
    task = asyncio.create_task(line.publish("CA1", receiver.url(), 1))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    await line.until(lambda: answered(not line.delivery._lanes))
    assert line.delivery._breakers[receiver.url()].working == 0
    with pytest.raises(OutboxDown, match="disk is full"):
        await line.publish("CA1", receiver.url(), 1)


async def test_a_lane_is_in_work_as_long_as_anybody_works_on_it(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, go_on = asyncio.Event(), asyncio.Event()

    async def fails_once(_: Any) -> web.StreamResponse:
        if not failed.is_set():
            failed.set()
            return web.Response(status=500)
        await go_on.wait()
        return web.Response()

    receiver.answers["/hook"] = fails_once
    await line.start()
    await line.until_idle()
    await line.publish("CA1", receiver.url(), 1)
    await line.failed(1)
    await line.until_idle()
    breaker, publish = line.delivery._breakers[receiver.url()], line.outbox.publish

    async def meanwhile_due(*args: Any, **kwargs: Any) -> Any:
        line.advance(600)
        await receiver.count(2)  # the pump has the lane now
        return await publish(*args, **kwargs)

    monkeypatch.setattr(line.outbox, "publish", meanwhile_due)
    await line.publish("CA1", receiver.url(), 2)
    await line.until(lambda: answered(len(line.delivery._lanes) == 1))
    assert breaker.working == 1
    go_on.set()
    await line.settled()
    await line.until_idle()
    assert breaker.working == 0
    assert not line.delivery._holders
    assert receiver.ids() == ids("CA1", 1, 1, 2)


async def test_an_endpoint_that_is_down_does_not_slow_another(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Any) -> web.StreamResponse:
        return web.Response(status=500)

    receiver.answers["/down"] = fail
    await line.start()
    for n in range(FAILED_LANES):
        await line.publish(f"CA{n}", receiver.url("/down"), 1)
    await line.until(lambda: answered(line.delivery._breakers[receiver.url("/down")].is_open))
    await line.until_idle()
    asked: list[str] = []
    for name in ("claim", "peek", "next_due"):
        monkeypatch.setattr(line.outbox, name, lambda *_, name=name, **__: asked.append(name))
    for n in (1, 2, 3):
        await line.publish("CA1", receiver.url(), n)
        await line.settled(FAILED_LANES)
    assert receiver.ids() == ids("CA1", 1, 2, 3)
    assert asked == []
    assert not line.delivery._keep_place("CA1", receiver.url("/down"), time.monotonic()), "others wait for it"


async def test_what_the_outbox_took_too_long_to_lease_is_sent_once(line: Any, receiver: Any) -> None:
    await line.start()
    await line.until_idle()
    began, go_on = threading.Event(), threading.Event()
    call = await line.outbox.own_call("CA1", "test", b"")
    event = Outgoing(receiver.url(), 1, "evt_CA1_1", "transcript.final", b"{}")

    def stall(_: sqlite3.Connection) -> None:
        began.set()
        go_on.wait(10)

    async def looked_for(_: Any) -> web.StreamResponse:
        return web.Response(status=500 if await line.outbox.claim("another", 10, 15.0) else 204)

    receiver.answers["/hook"] = looked_for
    stalled = asyncio.create_task(line.outbox._writer.run(stall))
    await asyncio.to_thread(began.wait, 10)
    publishing = asyncio.create_task(line.delivery.publish(call, [event], {}))
    await line.until(lambda: answered(line.outbox._writer._waiting == 2))
    line.ahead += 2 * line.lease_s
    go_on.set()
    await asyncio.gather(stalled, publishing)
    await line.settled()
    assert receiver.ids() == ids("CA1", 1)


@pytest.mark.parametrize("heard", [True, False], ids=["answered", "never answered"])
async def test_what_is_stored_only_after_the_close_began_is_left_for_the_next_start(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    await line.start()
    await line.until_idle()
    publish, stored, go_on, delivery = line.outbox.publish, asyncio.Event(), asyncio.Event(), line.delivery

    async def slow(*args: Any, **kwargs: Any) -> Any:
        leases = await publish(*args, **kwargs)
        stored.set()
        await go_on.wait()
        return leases

    monkeypatch.setattr(line.outbox, "publish", slow)
    task = asyncio.create_task(line.publish("CA1", receiver.url(), 1))
    await stored.wait()
    assert await line.outbox.next_due() > 1, "leased"
    stopping = asyncio.create_task(line.stop(10.0 if heard else 0.0))
    await delivery._means.closing.wait()
    if heard:
        go_on.set()
        await task
        await stopping
        assert await line.outbox.next_due() == 0
    else:
        with pytest.raises(OutboxDown, match="closed"):
            await task
        await stopping
    assert receiver.received == []


async def test_what_waited_is_delivered_at_the_start(line: Any, receiver: Any) -> None:
    await line.publish("CA1", receiver.url(), 1, 2)
    await line.start()
    await line.settled()
    assert receiver.ids() == ids("CA1", 1, 2)


async def test_a_failed_event_is_tried_again_with_the_same_bytes_before_the_next(
    line: Any, receiver: Any
) -> None:
    receiver.status("/hook", 500, 503, 404)
    await line.start()
    with capture_logs() as logs:
        await line.publish("CA1", receiver.url(), 1, 2)
        for attempt, wait_s in ((1, 0.5), (2, 1.0), (3, 2.0)):
            await line.failed(attempt)
            assert await line.outbox.next_due() == pytest.approx(wait_s, abs=0.4)
            line.advance(wait_s)
        await line.settled()
    assert receiver.ids() == ids("CA1", 1, 1, 1, 1, 2)
    first, *_ = receiver.received
    for received in receiver.received[:4]:
        assert received.body == first.body
        assert received.headers["webhook-id"] == first.id
    assert [entry["event"] for entry in logs] == ["lane_failing", "lane_recovered"]
    assert logs[0]["status"] == 500
    assert not any("/hook" in str(value) for entry in logs for value in entry.values())


async def test_the_first_retry_comes_after_half_a_second_by_itself(line: Any, receiver: Any) -> None:
    receiver.status("/hook", 500)
    await line.start()
    await line.publish("CA1", receiver.url(), 1)
    await receiver.count(2)
    first, second = receiver.received
    assert 0.4 < second.at - first.at < 5


async def test_random_failures_never_put_first_deliveries_out_of_order(line: Any, receiver: Any) -> None:
    dice = random.Random(7)

    async def moody(_: Any) -> web.StreamResponse:
        return web.Response(status=dice.choice([200, 200, 200, 500, 429, 302]))

    receiver.answers["/hook"] = moody
    await line.start()
    for n in range(1, 9):
        await asyncio.gather(*(line.publish(f"CA{call}", receiver.url(), n) for call in range(6)))
    while (await line.outbox.stats()).pending:
        line.advance(10)
        await asyncio.sleep(0.01)
    for call in range(6):
        of_call = [received for received in receiver.ids() if received.startswith(f"evt_CA{call}_")]
        assert list(dict.fromkeys(of_call)) == ids(f"CA{call}", *range(1, 9))


@pytest.mark.parametrize("backlog", [True, False])
async def test_dead_endpoints_take_no_room_from_another(line: Any, receiver: Any, *, backlog: bool) -> None:
    # All are paths of one host: what is bounded is the endpoint.
    dead = ["/dead/1", "/dead/2", "/dead/3"]
    receiver.answers.update(dict.fromkeys(dead, hang))
    if not backlog:
        await line.start(in_flight=12, per_endpoint=8)
    for call, path in itertools.product(range(10), dead):
        await line.publish(f"CA{path}{call}", receiver.url(path), 1)
    if backlog:
        await line.start(in_flight=12, per_endpoint=8)
    await receiver.until(lambda: all(receiver.at(path) for path in dead))
    for call in range(10):
        await line.publish(f"CA{call}", receiver.url("/alive"), 1, 2, 3)
    await receiver.count(30, "/alive")
    assert all(len(receiver.at(path)) <= 8 for path in dead)
    await line.stop(grace_s=0.05)


async def test_one_lane_in_backoff_does_not_hold_up_another_of_the_same_endpoint(
    line: Any, receiver: Any
) -> None:
    async def poisoned(received: Any) -> web.StreamResponse:
        return web.Response(status=400 if "CAbad" in received.id else 200)

    receiver.answers["/hook"] = poisoned
    await line.start()
    await line.publish("CAbad", receiver.url(), 1, 2)
    await receiver.count(1)
    await line.publish("CAgood", receiver.url(), 1, 2)
    await line.settled(pending=2)
    assert [received for received in receiver.ids() if "good" in received] == ids("CAgood", 1, 2)


async def test_no_more_than_one_post_per_lane_and_the_endpoints_share_at_a_time(
    line: Any, receiver: Any
) -> None:
    now, most = 0, 0
    all_there = asyncio.Event()

    async def slow(_: Any) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 5:
            all_there.set()
        await all_there.wait()
        await asyncio.sleep(0.01)
        now -= 1
        return web.Response()

    receiver.answers["/hook"] = slow
    await line.start(in_flight=50, per_endpoint=5)
    for call in range(15):
        await line.publish(f"CA{call}", receiver.url(), 1, 2)
    await line.settled()
    assert most == 5


@pytest.mark.parametrize(("asked", "waited"), [("3", 3.0), ("0", 1.0), ("999999", 3600.0)])
async def test_retry_after_is_honoured(line: Any, receiver: Any, asked: str, waited: float) -> None:
    receiver.status("/hook", 503, headers={"retry-after": asked})
    await line.start()
    await line.publish("CA1", receiver.url(), 1)
    await line.failed(1)
    assert await line.outbox.next_due() == pytest.approx(waited, abs=0.3)
    line.advance(waited)
    await line.settled()


async def test_410_pauses_the_endpoint_until_the_next_start_and_keeps_its_events(
    line: Any, receiver: Any
) -> None:
    receiver.status("/gone", 410)
    await line.start()
    with capture_logs() as logs:
        await line.publish("CA1", receiver.url("/gone"), 1, 2)
        await receiver.count(1, "/gone")
        await line.publish("CA2", receiver.url("/gone"), 1)
        await line.publish("CA3", receiver.url("/hook"), 1)
        await line.settled(pending=3)
        line.advance(86_400)
        await asyncio.sleep(0.05)
    assert len(receiver.at("/gone")) == 1
    assert [entry["event"] for entry in logs] == ["endpoint_paused"]
    first = (await line.outbox.records(Selection(), 10))[-1]
    assert (first.state, first.tries, first.last_status) == ("pending", 1, 410)
    assert (await line.outbox.stats()).paused == 1
    await line.stop()
    await line.outbox.close()
    await line.outbox.open()
    line.ahead = 0.0
    await line.start()
    await line.settled()
    assert sorted(receiver.ids("/gone")) == sorted(ids("CA1", 1, 1, 2) + ids("CA2", 1))


async def publish_calls(line: Any, endpoint: str, calls: range, *sequences: int) -> None:
    await asyncio.gather(*(line.publish(f"CA{call}", endpoint, *sequences) for call in calls))


async def test_an_endpoint_that_is_down_gets_one_probe_at_a_time_and_is_let_back_slowly(
    line: Any, receiver: Any
) -> None:
    async def away(_: Any) -> web.StreamResponse:
        return web.Response(status=503)

    receiver.answers["/down"] = away
    await publish_calls(line, receiver.url("/down"), range(100), 1, 2)
    with capture_logs() as logs:
        await line.start()
        await line.until_idle()
        assert len(receiver.at("/down")) <= UNPROVEN
        sent = len(receiver.at("/down"))
        for wait_s in (5, 10):
            await line.publish(f"CAwell{wait_s}", receiver.url("/well"), 1)
            await receiver.until(lambda: f"evt_CAwell{wait_s}_1" in receiver.ids("/well"))  # noqa: B023 - awaited here
            assert len(receiver.at("/down")) == sent
            line.advance(wait_s)
            sent += 1
            await receiver.count(sent, "/down")
            await line.until_idle()
        await line.delivery.measure()
        assert REGISTRY.get_sample_value("bridge_webhook_breakers_open") == 1
        assert len(receiver.at("/down")) == sent
        del receiver.answers["/down"]
        line.advance(20)
        began = time.perf_counter()
        await line.settled()
    assert time.perf_counter() - began > 1.5, "100 lanes at 50 a second, less the first few"
    for call in range(100):
        of_call = [received for received in receiver.ids("/down") if f"_CA{call}_" in received]
        assert list(dict.fromkeys(of_call)) == ids(f"CA{call}", 1, 2)
    of_endpoint = [entry for entry in logs if entry["event"].startswith("endpoint_")]
    assert [entry["event"] for entry in of_endpoint] == ["endpoint_breaker_open", "endpoint_recovered"]
    assert all(entry["host"] == "127.0.0.1" and len(entry["endpoint"]) == 16 for entry in of_endpoint)
    assert of_endpoint[0]["error"] == "status 503"


async def test_attempts_do_not_count_while_the_endpoint_is_down(line: Any, receiver: Any) -> None:
    receiver.status("/hook", *[503] * 1000)
    await line.start()
    await publish_calls(line, receiver.url(), range(60), 1)
    await line.until_idle()
    sent = len(receiver.received)
    for call in range(60, 80):
        await line.publish(f"CA{call}", receiver.url(), 1)
        line.outbox.wake.set()
    await line.until_idle()
    assert len(receiver.received) == sent
    assert await line.outbox._writer.run(attempts) == sent


def attempts(db: sqlite3.Connection) -> int:
    total: int = db.execute("select sum(attempts) from lanes").fetchone()[0]
    return total


@pytest.mark.parametrize("status", [400, 500])
async def test_calls_whose_event_always_fails_do_not_hold_up_another(
    line: Any, receiver: Any, status: int
) -> None:
    async def poisoned(received: Any) -> web.StreamResponse:
        return web.Response(status=204 if "_CAwell_" in received.id else status)

    receiver.answers["/hook"] = poisoned
    await publish_calls(line, receiver.url(), range(30), 1)
    await line.start()
    await line.until_idle()
    line.advance(4)
    await line.until_idle()
    sent = len(receiver.received)
    await line.publish("CAwell", receiver.url(), 1)
    if status == 500:
        await line.until_idle()
        assert len(receiver.received) == sent, "the breaker is open"
        line.advance(1)
    await receiver.count(sent + 1)
    assert receiver.ids()[sent] == "evt_CAwell_1", "the 30 are due too, and since longer"


async def test_a_hanging_endpoint_gets_40_posts_and_no_more(line: Any, receiver: Any) -> None:
    receiver.answers["/hang"] = hang
    await publish_calls(line, receiver.url("/hang"), range(100), 1)
    await line.start()
    await receiver.count(UNPROVEN, "/hang")
    await line.publish("CAwell", receiver.url("/well"), *range(1, 20))
    await receiver.count(19, "/well")
    assert len(receiver.at("/hang")) == UNPROVEN
    await line.stop(grace_s=0.05)


async def test_an_endpoint_that_accepts_gets_its_whole_share(line: Any, receiver: Any) -> None:
    blocked = asyncio.Event()

    async def slow(_: Any) -> web.StreamResponse:
        # What is accepted now and then is what makes room.
        if len(receiver.received) % 20:
            await blocked.wait()
        return web.Response()

    receiver.answers["/hook"] = slow
    await publish_calls(line, receiver.url(), range(130), 1)
    await line.start()
    await receiver.count(100)
    assert len(receiver.received) <= 106, "100 at a time, and those that were accepted"
    blocked.set()
    await line.settled()


async def test_a_pump_with_nothing_to_do_sleeps_until_the_breaker_moves(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status("/hook", *[503] * 40)
    await line.start()
    await publish_calls(line, receiver.url(), range(50), 1)
    await line.until_idle()
    claim, claims = line.outbox.claim, itertools.count()

    async def counted(*args: Any, **more: Any) -> Any:
        next(claims)
        return await claim(*args, **more)

    monkeypatch.setattr(line.outbox, "claim", counted)
    await asyncio.sleep(0.2)
    assert next(claims) <= 1


async def test_a_breaker_that_moves_while_the_outbox_is_asked_is_not_slept_over(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.status("/hook", *[503] * 40)
    await line.start()
    await publish_calls(line, receiver.url(), range(50), 1)
    await line.until_idle()
    sent, claim = len(receiver.received), line.outbox.claim

    async def slow(*args: Any, **more: Any) -> Any:
        leases = await claim(*args, **more)
        if more["room"] == {receiver.url(): 0}:
            line.ahead += 5
        return leases

    monkeypatch.setattr(line.outbox, "claim", slow)
    line.outbox.wake.set()
    await receiver.count(sent + 1)


async def test_nothing_is_remembered_of_an_endpoint_that_is_well(line: Any, receiver: Any) -> None:
    await line.start()
    for n in range(30):
        await line.publish("CA1", receiver.url(f"/{n}"), 1)
    await line.settled()
    await line.until_idle()
    line.outbox.wake.set()

    async def forgotten() -> bool:
        return not line.delivery._breakers

    await line.until(forgotten)


async def test_after_72_hours_the_event_is_buried_and_the_lane_goes_on(line: Any, receiver: Any) -> None:
    async def poisoned(received: Any) -> web.StreamResponse:
        return web.Response(status=500 if received.id.endswith("_1") else 200)

    receiver.answers["/hook"] = poisoned
    await line.start()
    with capture_logs() as logs:
        await line.publish("CA1", receiver.url(), 1, 2)
        for attempt in range(1, 11):
            await line.failed(attempt)
            assert (await line.outbox.stats()).dead == 0
            line.advance(8 * 3600)
        await line.settled()
    assert receiver.ids() == ids("CA1", *[1] * 11, 2)
    assert (await line.outbox.stats()).dead == 1
    assert [entry["event"] for entry in logs] == ["lane_failing", "event_buried", "lane_recovered"]


async def test_a_refused_target_is_kept_told_once_and_tried_again(line: Any) -> None:
    await line.start()
    with capture_logs() as logs:
        await line.publish("CA1", "http://10.0.0.1/hook?key=secret", 1)
        await line.failed(1)
        line.advance(0.6)
        await line.failed(2)
    (entry,) = logs
    assert entry["event"] == "lane_failing"
    assert entry["host"] == "10.0.0.1"
    assert "allow_private_networks" in entry["error"]
    assert "secret" not in str(entry)
    assert (await line.outbox.stats()).pending == 1


async def test_close_waits_for_the_post_under_way_and_starts_no_other(line: Any, receiver: Any) -> None:
    async def slow(_: Any) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response()

    receiver.answers["/hook"] = slow
    await line.start()
    await line.publish("CA1", receiver.url(), 1, 2, 3)
    await receiver.count(1)
    await line.stop()
    assert receiver.ids() == ids("CA1", 1)
    assert (await line.outbox.stats()).pending == 2
    assert await line.outbox.next_due() == 0, "the lane was handed back"
    await line.start()
    await line.settled()
    assert receiver.ids() == ids("CA1", 1, 2, 3)


async def test_close_does_not_wait_for_ever(line: Any, receiver: Any) -> None:
    receiver.answers["/hook"] = hang
    await line.start()
    await line.publish("CA1", receiver.url(), 1)
    await receiver.count(1)
    began = time.perf_counter()
    await line.stop(grace_s=0.05)
    assert time.perf_counter() - began < 1
    assert await line.outbox.next_due() == 0
    assert (await line.outbox.stats()).lanes_in_backoff == 0, "a POST that we ended is no failure"


async def test_an_outbox_that_is_down_for_a_while_is_told_once(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "DOWN_S", 0.01)
    claim, tries = line.outbox.claim, itertools.count()

    async def sometimes(*args: Any, **more: Any) -> Any:
        if next(tries) < 3:
            raise OutboxDown("The outbox's disk is full: make room on it.")
        return await claim(*args, **more)

    monkeypatch.setattr(line.outbox, "claim", sometimes)
    with capture_logs() as logs:
        await line.start()
        await line.publish("CA1", receiver.url(), 1)
        await line.settled()
    assert [entry["event"] for entry in logs] == ["outbox_down", "outbox_up"]


async def test_a_mistake_of_ours_leaves_the_lane_to_its_lease_and_the_others_alone(
    line: Any, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_module, "DOWN_S", 0.01)
    peek, next_due, mistakes = line.outbox.peek, line.outbox.next_due, itertools.count()

    async def wrong(lane: Any, limit: int) -> Any:
        if lane.call_sid == "CAbad":
            raise KeyError("a mistake")
        return await peek(lane, limit)

    async def wrong_once(**more: Any) -> Any:
        if not next(mistakes):
            raise KeyError("another")
        return await next_due(**more)

    monkeypatch.setattr(line.outbox, "peek", wrong)
    monkeypatch.setattr(line.outbox, "next_due", wrong_once)
    with capture_logs() as logs:
        await line.start()
        await line.publish("CAbad", receiver.url(), 1)
        await line.publish("CAgood", receiver.url(), 1, 2)
        await line.settled(pending=1)
    assert receiver.ids() == ids("CAgood", 1, 2)
    assert sorted({entry["event"] for entry in logs}) == ["lane_crashed", "pump_crashed"]


async def test_an_ack_that_came_too_late_is_no_more_than_a_duplicate(line: Any, receiver: Any) -> None:
    blocked = asyncio.Event()

    async def slow_once(_: Any) -> web.StreamResponse:
        if len(receiver.received) == 1:
            await blocked.wait()
        return web.Response()

    receiver.answers["/hook"] = slow_once
    await line.start()
    with capture_logs() as logs:
        await line.publish("CA1", receiver.url(), 1, 2)
        await receiver.count(1)
        line.advance(31)  # the lease runs out while the POST is under way
        await receiver.count(2)
        blocked.set()
        await line.settled()

        async def logged() -> bool:
            return bool(logs)

        await line.until(logged)
    assert list(dict.fromkeys(receiver.ids())) == ids("CA1", 1, 2)
    assert [entry["event"] for entry in logs] == ["lane_fenced"]


async def test_the_outbox_is_counted_once_in_5_s_and_whoever_asks_meanwhile_does_not_wait(
    line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats, counted, go_on = line.outbox.stats, [0], asyncio.Event()

    async def slow() -> Any:
        counted[0] += 1
        await go_on.wait()
        return await stats()

    monkeypatch.setattr(line.outbox, "stats", slow)
    await line.start()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await line.delivery.measure()
    await line.delivery.measure()
    assert counted == [1]
    go_on.set()
    line.advance(60)
    await line.delivery._measuring
    await line.delivery.measure()
    assert counted == [1], "the time that it took is no reason to begin again"
    line.advance(5)
    await line.delivery.measure()
    assert counted == [2]
    go_on.clear()
    line.advance(5)
    asking = asyncio.create_task(line.delivery.measure())
    await line.until(lambda: asyncio.sleep(0, counted == [3]))
    await line.stop()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_metrics(line: Any, receiver: Any) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = [
        value("bridge_webhook_deliveries_total", result="accepted"),
        value("bridge_webhook_deliveries_total", result="failed"),
        value("bridge_webhook_added_seconds_count"),
        value("bridge_outbox_publish_seconds_count"),
    ]
    receiver.status("/hook", 200, 500)
    await line.start()
    await line.publish("CA1", receiver.url(), 1, 2)
    await line.failed(1)
    await line.delivery.measure()
    assert value("bridge_outbox_pending") == 1
    assert value("bridge_outbox_lanes_backoff") == 1
    assert value("bridge_outbox_oldest_pending_seconds") > 0
    line.advance(1)
    await line.settled()
    line.advance(5)
    await line.delivery.measure()
    assert value("bridge_outbox_pending") == value("bridge_outbox_oldest_pending_seconds") == 0
    after = [
        value("bridge_webhook_deliveries_total", result="accepted"),
        value("bridge_webhook_deliveries_total", result="failed"),
        value("bridge_webhook_added_seconds_count"),
        value("bridge_outbox_publish_seconds_count"),
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 2, 1]


VICTIM = """
import asyncio, ipaddress, sys
from pathlib import Path
from bridge import log
from bridge.outbox.outbox import Outgoing
from bridge.outbox.sqlite import Sqlite
from bridge.webhook.delivery import Delivery
from bridge.webhook.target import Targets

async def call(outbox, sid, url):
    lease = await outbox.own_call(sid, "victim", b"")
    for n in range(lease.next_sequence, 10**6):
        await outbox.publish(lease, [Outgoing(url, n, f"evt_{sid}_{n}", "t", b'{"n": %d}' % n)], {"inbound": n})
        print(sid, n, flush=True)
        await asyncio.sleep(0.003)

async def main(directory, url, secret):
    outbox = Sqlite(Path(directory))
    await outbox.open()
    allowed = Targets([ipaddress.ip_network("127.0.0.0/8")])
    async with Delivery(outbox, lambda _: [secret], allowed):
        await asyncio.gather(*(call(outbox, f"CA{n}", url) for n in range(4)))

log.configure()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9_loses_nothing_that_was_acknowledged_and_keeps_the_order(
    tmp_path: Path, line: Any, receiver: Any
) -> None:
    directory = tmp_path / "victim"
    published: dict[str, int] = {}
    dice = random.Random(3)

    async def sometimes_down(_: Any) -> web.StreamResponse:
        return web.Response(status=500 if dice.random() < 0.02 else 200)

    receiver.answers["/hook"] = sometimes_down
    for _ in range(4):
        victim = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            VICTIM,
            str(directory),
            receiver.url(),
            SECRET,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert victim.stdout is not None
        lines = dice.randint(40, 120)
        for _ in range(lines):
            sid, n = (await asyncio.wait_for(victim.stdout.readline(), 10)).decode().split()
            published[sid] = int(n)
        victim.kill()
        for rest in (await victim.stdout.read()).splitlines(keepends=True):
            if rest.endswith(b"\n"):
                sid, n = rest.decode().split()
                published[sid] = int(n)
        await victim.wait()
    receiver.answers.clear()
    line.outbox = Sqlite(directory, line.clock)
    await line.outbox.open()
    await line.start()
    await line.settled()
    await line.stop()
    await line.outbox.close()
    for sid, last in published.items():
        of_call = [int(received.split("_")[2]) for received in receiver.ids() if f"_{sid}_" in received]
        firsts = list(dict.fromkeys(of_call))
        assert firsts == list(range(1, len(firsts) + 1))
        assert len(firsts) >= last
