"""What every outbox must do, whatever stores it: publish, claim, peek, ack, retry, bury, release, pause."""

import asyncio

import pytest

from bridge.errors import BridgeError
from bridge.outbox.lease import Erased, Fenced
from bridge.outbox.outbox import (
    Line,
    Outbox,
    OutboxDown,
    OutboxFull,
    Outgoing,
    Selection,
    Stats,
    endpoint_tag,
    lane_name,
)
from tests.outbox.events import A, B, Clock, claim_one, event, fill, sequences, work_off


def test_a_lane_is_named_by_its_call_and_a_hash_of_its_endpoint() -> None:
    assert "secret" not in lane_name(A, "CA1")
    assert lane_name(A, "CA1") == f"{endpoint_tag(A)}/CA1" != lane_name(B, "CA1")
    assert len(endpoint_tag(A)) == 16


def test_a_full_outbox_is_one_that_is_down() -> None:
    assert issubclass(OutboxFull, OutboxDown)
    assert issubclass(OutboxDown, BridgeError)
    assert issubclass(Fenced, BridgeError)
    assert issubclass(Erased, Fenced)


async def test_a_new_call_begins_with_sequence_1_and_no_watermarks(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"meta")
    assert (lease.call_sid, lease.owner, lease.epoch) == ("CA1", "me", 1)
    assert (lease.next_sequence, dict(lease.watermarks), lease.ended) == (1, {}, False)


async def test_a_later_owner_goes_on_where_the_last_one_stopped(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1), event(2)], {"inbound": 8000, "outbound": 160})
    await outbox.publish(lease, [event(3)], {"inbound": 4000}, ended=True)
    later = await outbox.own_call("CA1", "you", b"")
    assert (later.epoch, later.next_sequence, later.ended) == (2, 4, True)
    assert dict(later.watermarks) == {"inbound": 8000, "outbound": 160}, "watermarks never move back"


async def test_publishing_the_same_again_is_success_without_duplicates(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1), event(2)], {"inbound": 5})
    await outbox.publish(lease, [event(1), event(2)], {"inbound": 5})
    await outbox.publish(lease, [event(2), event(3)], {"inbound": 6})
    assert await sequences(outbox, await claim_one(outbox)) == [1, 2, 3]
    assert (await outbox.stats()).pending == 3


async def test_a_repeat_after_delivery_does_not_deliver_again(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1)], {})
    lane = await claim_one(outbox)
    await outbox.ack(lane, 1)
    await outbox.release(lane)
    await outbox.publish(lease, [event(1)], {})
    assert await outbox.claim("me", 10, 30) == []


async def test_watermarks_alone_may_be_published(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [], {"inbound": 256})
    later = await outbox.own_call("CA1", "me", b"")
    assert (dict(later.watermarks), later.next_sequence) == ({"inbound": 256}, 1)


async def test_the_loser_of_a_call_is_fenced_and_changes_nothing(outbox: Outbox) -> None:
    old = await outbox.own_call("CA1", "old", b"")
    new = await outbox.own_call("CA1", "new", b"")
    with pytest.raises(Fenced, match="CA1"):
        await outbox.publish(old, [event(1)], {"inbound": 99}, ended=True)
    await outbox.publish(new, [], {})
    after = await outbox.own_call("CA1", "new", b"")
    assert (after.next_sequence, dict(after.watermarks), after.ended) == (1, {}, False)


@pytest.mark.parametrize("sequence", [0, 3])
async def test_a_hole_in_a_sequence_is_refused_with_all_that_came_along(
    outbox: Outbox, sequence: int
) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    with pytest.raises(ValueError, match=rf"event {sequence} published"):
        await outbox.publish(lease, [event(1), event(sequence)], {"inbound": 1})
    assert dict((await outbox.own_call("CA1", "me", b"")).watermarks) == {}
    assert (await outbox.stats()).pending == 0


async def test_another_event_under_a_used_sequence_is_refused(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1)], {})
    other = Outgoing(A, 1, "evt_other", "call.dtmf", b"{}")
    with pytest.raises(ValueError, match="another event"):
        await outbox.publish(lease, [other], {})


async def test_each_endpoint_of_a_call_has_its_own_lane_and_sequence(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2), event(1, B))
    leases = {lane.endpoint: lane for lane in await outbox.claim("me", 10, 30)}
    assert await sequences(outbox, leases[A]) == [1, 2]
    assert await sequences(outbox, leases[B]) == [1]


async def test_a_stored_event_keeps_its_exact_bytes(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1))
    lane = await claim_one(outbox)
    (stored,) = await outbox.peek(lane)
    assert (stored.lane, stored.event_id, stored.type) == (lane.lane, "evt_CA1_1", "transcript.final")
    assert stored.body == event(1).body
    assert stored.created_at == clock.now


async def test_a_leased_lane_is_not_leased_again_until_the_lease_ends(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1))
    first = await claim_one(outbox)
    assert await outbox.claim("me", 10, 30) == []
    assert await outbox.next_due() == 30
    clock.now += 31
    second = await claim_one(outbox)
    assert second.epoch == first.epoch + 1
    for late in (
        outbox.ack(first, 1),
        outbox.retry(first, 1, 1, None, "x"),
        outbox.bury(first, 1, None, "x"),
        outbox.peek(first),
    ):
        with pytest.raises(Fenced):
            await late
    await outbox.release(first)
    assert await sequences(outbox, second) == [1], "a late release does not disturb the new owner"


async def test_ack_moves_on_and_extends_the_lease(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2))
    lane = await claim_one(outbox)
    clock.now += 20
    assert await outbox.ack(lane, 1) is True
    clock.now += 20
    assert await outbox.claim("me", 10, 30) == []
    assert await sequences(outbox, lane) == [2]
    with pytest.raises(Fenced):
        await outbox.ack(lane, 1)
    assert await outbox.ack(lane, 2) is False
    assert await outbox.next_due() is None


async def test_the_ack_of_the_last_event_gives_the_lane_back(outbox: Outbox) -> None:
    await fill(outbox, event(1))
    lane = await claim_one(outbox)
    assert await outbox.ack(lane, 1) is False
    with pytest.raises(Fenced):
        await outbox.peek(lane)
    await fill(outbox, event(2))
    assert (await claim_one(outbox)).head == 2


async def test_an_event_that_comes_while_the_lane_is_leased_is_found_by_the_owner_or_after_release(
    outbox: Outbox,
) -> None:
    await fill(outbox, event(1))
    lane = await claim_one(outbox)
    await fill(outbox, event(2))
    assert await outbox.claim("me", 10, 30) == []
    assert await outbox.ack(lane, 1) is True
    assert await sequences(outbox, lane) == [2]
    outbox.wake.clear()
    await outbox.release(lane)
    assert outbox.wake.is_set()
    assert (await claim_one(outbox)).head == 2


async def test_who_delivers_what_it_publishes_gets_the_lane_with_it(outbox: Outbox, clock: Clock) -> None:
    call = await outbox.own_call("CA1", "me", b"")
    outbox.wake.clear()
    (lane,) = await outbox.publish(call, [event(1), event(2)], {}, deliverer="me", lease_s=30)
    assert not outbox.wake.is_set()
    assert (lane.endpoint, lane.call_sid, lane.head, lane.attempts) == (A, "CA1", 1, 0)
    assert await outbox.claim("another", 10, 30) == []
    assert await outbox.next_due() == 30
    assert await outbox.publish(call, [event(3)], {}, deliverer="another", lease_s=30) == [], "it is in work"
    assert [await outbox.ack(lane, n) for n in (1, 2, 3)] == [True, True, False]
    (lane,) = await outbox.publish(call, [event(4)], {}, deliverer="me", lease_s=30)
    clock.now += 31
    (again,) = await outbox.claim("another", 10, 30)
    assert (again.lane, again.head) == (lane.lane, 4)
    with pytest.raises(Fenced):
        await outbox.ack(lane, 4)


async def test_who_delivers_what_it_publishes_gets_no_lane_that_is_not_due_or_paused(
    outbox: Outbox, clock: Clock
) -> None:
    call = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(call, [event(1)], {})
    await outbox.retry(await claim_one(outbox), 1, 5, 503, "status 503")
    outbox.wake.clear()
    for events in ([event(2)], [event(1), event(2)]):  # the second time nobody knew whether it was stored
        assert await outbox.publish(call, events, {}, deliverer="me", lease_s=30) == []
        assert outbox.wake.is_set(), "somebody is to look when it is due"
    await outbox.publish(call, [event(1, B)], {})
    await outbox.pause(B, "status 410")
    assert await outbox.publish(call, [event(1, B), event(2, B)], {}, deliverer="me", lease_s=30) == []
    clock.now += 5
    (lane,) = await outbox.publish(call, [event(1), event(2)], {}, deliverer="me", lease_s=30)
    assert (lane.head, lane.attempts, lane.first_failure) == (1, 1, clock.now - 5)


async def test_retry_gives_the_lane_back_until_it_is_due(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2))
    began = clock.now
    await outbox.retry(await claim_one(outbox), 1, 5, 503, "status 503")
    assert await outbox.claim("me", 10, 30) == []
    assert await outbox.next_due() == 5
    clock.now += 5
    lane = await claim_one(outbox)
    assert (lane.head, lane.attempts, lane.first_failure) == (1, 1, began)
    await outbox.retry(lane, 1, 5, None, "timeout")
    clock.now += 5
    lane = await claim_one(outbox)
    assert (lane.attempts, lane.first_failure) == (2, began)
    await outbox.ack(lane, 1)
    await outbox.release(lane)
    lane = await claim_one(outbox)
    assert (lane.head, lane.attempts, lane.first_failure) == (2, 0, None)


async def test_bury_goes_on_with_the_next_event_in_the_same_outage(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2))
    began = clock.now
    await outbox.retry(await claim_one(outbox), 1, 0, 500, "status 500")
    lane = await claim_one(outbox)
    await outbox.bury(lane, 1, 500, "status 500")
    assert await sequences(outbox, lane) == [2]
    await outbox.release(lane)
    lane = await claim_one(outbox)
    assert (lane.head, lane.attempts, lane.first_failure) == (2, 0, began)
    stats = await outbox.stats()
    assert (stats.pending, stats.dead) == (1, 1)


async def test_a_lane_in_backoff_does_not_hold_up_another(outbox: Outbox) -> None:
    await fill(outbox, event(1))
    await outbox.retry(await claim_one(outbox), 1, 60, 500, "status 500")
    await fill(outbox, event(1, A, "CA2"), call="CA2")
    assert (await claim_one(outbox)).call_sid == "CA2"


async def test_claims_keep_to_the_limit_and_to_each_endpoints_room(outbox: Outbox) -> None:
    for n in range(8):
        await fill(outbox, event(1, A, f"CA{n}"), call=f"CA{n}")
    await fill(outbox, event(1, B, "CAb"), call="CAb")
    assert await outbox.claim("me", 0, 30) == []
    assert await outbox.claim("me", 10, 30, each=0) == []
    first = await outbox.claim("me", 10, 30, each=3)
    assert sorted(lane.endpoint for lane in first) == [A, A, A, B]
    assert len(await outbox.claim("me", 10, 30, each=2)) == 2, "who claims says how much room there is left"
    assert await outbox.claim("me", 10, 30, room={A: 0}) == []
    assert await outbox.claim("me", 10, 30, each=0, room={B: 5}) == []
    assert len(await outbox.claim("me", 10, 30, each=0, room={A: 2})) == 2
    assert len(await outbox.claim("me", 10, 30)) == 1


async def test_the_longest_due_lane_is_claimed_first(outbox: Outbox, clock: Clock) -> None:
    for n, endpoint in ((2, A), (1, B), (4, A), (3, B)):
        await fill(outbox, event(1, endpoint, f"CA{n}"), call=f"CA{n}")
        clock.now += 1
    claimed = [(await outbox.claim("me", 1, 30))[0].call_sid for _ in range(4)]
    assert claimed == ["CA2", "CA1", "CA4", "CA3"]


async def test_a_few_are_the_longest_due_of_all(outbox: Outbox, clock: Clock) -> None:
    for n, endpoint in ((2, A), (1, B), (4, A), (3, B)):
        await fill(outbox, event(1, endpoint, f"CA{n}"), call=f"CA{n}")
        clock.now += 1
    assert {lane.call_sid for lane in await outbox.claim("me", 2, 30)} == {"CA2", "CA1"}


async def test_live_lanes_go_before_those_that_failed_and_these_before_replays(
    outbox: Outbox, clock: Clock
) -> None:
    async def add(call: str, endpoint: str = A) -> None:
        clock.now += 1
        await fill(outbox, event(1, endpoint, call), call=call)

    for call in ("CA1", "CA2"):
        await add(call)
    await work_off(outbox, "bury", "bury")
    for call in ("CA1", "CA2"):
        assert await outbox.replay(Selection(call_sid=call)) == 1
        assert await outbox.next_due() == 0
        clock.now += 1
    await add("CA3")
    (live,) = await outbox.claim("me", 1, 30)
    assert live.call_sid == "CA3"
    await outbox.retry(live, 1, 0, 500, "status 500")
    await add("CA4")
    await add("CA5")
    await add("CA6", B)
    claimed = await outbox.claim("me", 2, 30)
    claimed += await outbox.claim("me", 9, 30, room={A: 0})
    assert sorted(lane.call_sid for lane in claimed) == ["CA4", "CA5", "CA6"]
    assert [(await outbox.claim("me", 1, 30))[0].call_sid for _ in range(3)] == ["CA3", "CA1", "CA2"]


async def test_a_lane_is_live_again_when_its_head_has_not_failed(outbox: Outbox, clock: Clock) -> None:
    for call in ("CA1", "CA2"):
        await fill(outbox, event(1, A, call), event(2, A, call), call=call)
        clock.now += 1
    first, second = await outbox.claim("me", 2, 30)
    await outbox.retry(first, 1, 0, 500, "status 500")
    await outbox.release(second)
    (lane,) = await outbox.claim("me", 1, 30)
    assert lane.call_sid == second.call_sid
    clock.now += 1
    (again,) = await outbox.claim("me", 1, 30)
    assert again.call_sid == first.call_sid
    await outbox.ack(again, 1)
    await outbox.release(again)
    clock.now += 1
    await outbox.release(lane)
    assert [(await outbox.claim("me", 1, 30))[0].call_sid for _ in range(2)] == [
        first.call_sid,
        second.call_sid,
    ]


async def test_a_paused_endpoint_keeps_its_events_and_is_not_claimed(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(1, B))
    await outbox.pause(A, "status 410")
    assert [lane.endpoint for lane in await outbox.claim("me", 10, 30)] == [B]
    await fill(outbox, event(2))
    assert await outbox.next_due() == 30, "only the leased lane of the other endpoint"
    assert await outbox.next_due(without=[B]) is None
    assert (await outbox.stats()).pending == 3


async def test_the_next_due_lane_but_those_of_some_endpoints(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1))
    await outbox.retry(await claim_one(outbox), 1, 5, 500, "status 500")
    await fill(outbox, event(1, B))
    assert await outbox.next_due() == 0
    assert await outbox.next_due(without={B}) == 5
    assert await outbox.next_due(without={A, B}) is None
    clock.now += 7
    assert await outbox.next_due(without={B}) == 0


async def test_waking(outbox: Outbox) -> None:
    assert outbox.wake.is_set(), "there may be something from the last time"
    lease = await outbox.own_call("CA1", "me", b"")
    outbox.wake.clear()
    await outbox.publish(lease, [], {"inbound": 1})
    assert not outbox.wake.is_set()
    await outbox.publish(lease, [event(1)], {})
    assert outbox.wake.is_set()
    lane = await claim_one(outbox)
    outbox.wake.clear()
    await outbox.retry(lane, 1, 0.5, 500, "status 500")
    assert outbox.wake.is_set()


async def test_who_gives_up_waiting_still_wakes_the_pump(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    outbox.wake.clear()
    publishing = asyncio.create_task(outbox.publish(lease, [event(1)], {}))
    await asyncio.sleep(0)
    publishing.cancel()
    async with asyncio.timeout(5):
        await outbox.wake.wait()
    assert (await outbox.stats()).pending == 1


async def test_stats(outbox: Outbox, clock: Clock) -> None:
    assert await outbox.stats() == Stats(pending=0, oldest_age_s=0.0, lanes_in_backoff=0, dead=0)
    await fill(outbox, event(1), event(2))
    clock.now += 10
    await fill(outbox, event(1, B))
    await outbox.retry((await outbox.claim("me", 1, 30))[0], 1, 60, 500, "status 500")
    clock.now += 5
    assert await outbox.stats() == Stats(pending=3, oldest_age_s=15.0, lanes_in_backoff=1, dead=0)


async def test_many_calls_publish_at_the_same_time(outbox: Outbox) -> None:
    async def call(name: str) -> None:
        lease = await outbox.own_call(name, "me", b"")
        for n in range(1, 6):
            await outbox.publish(lease, [event(n, A, name)], {"inbound": n})

    await asyncio.gather(*(call(f"CA{n}") for n in range(40)))
    assert (await outbox.stats()).pending == 200
    for lane in await outbox.claim("me", 40, 30):
        assert await sequences(outbox, lane) == [1, 2, 3, 4, 5]


async def test_a_token_is_spent_once_until_it_expires(outbox: Outbox, clock: Clock) -> None:
    assert await outbox.spend("n1", clock.now + 60)
    assert not await outbox.spend("n1", clock.now + 60)
    assert await outbox.spend("n2", clock.now + 60)


async def test_the_lines_of_a_call_are_stored_once_and_come_back_in_order(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    lines = [Line(n, "inbound", n * 1000, n * 1000 + 500, f"žluťoučký {n}") for n in (1, 2, 3)]
    await outbox.publish(lease, [], {"inbound": 5}, lines=lines[:2])
    await outbox.publish(lease, [event(1)], {}, lines=lines[1:])
    assert await outbox.transcript("CA1") == lines
    assert await outbox.transcript("CA2") == []
    await outbox.own_call("CA1", "you", b"")
    with pytest.raises(Fenced):
        await outbox.publish(lease, [], {}, lines=[Line(4, "inbound", 0, 1, "late")])
    assert await outbox.transcript("CA1") == lines


async def test_lines_stay_until_their_call_has_ended_and_then_as_long_as_bodies(
    outbox: Outbox, clock: Clock
) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [], {}, lines=[Line(1, "inbound", 0, 1, "one")])
    clock.now += 1000
    await outbox.purge(body_age_s=10, call_age_s=1e9)
    assert len(await outbox.transcript("CA1")) == 1
    await outbox.publish(lease, [], {}, lines=[Line(2, "inbound", 1, 2, "two")], ended=True)
    clock.now += 9
    await outbox.purge(body_age_s=10, call_age_s=1e9)
    assert len(await outbox.transcript("CA1")) == 2
    clock.now += 2
    await outbox.purge(body_age_s=10, call_age_s=1e9)
    assert await outbox.transcript("CA1") == []


async def test_an_erased_call_has_no_lines(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"about")
    await outbox.publish(lease, [], {}, lines=[Line(1, "inbound", 0, 1, "one")])
    await outbox.erase("CA1")
    assert await outbox.transcript("CA1") == []
    later = await outbox.own_call("CA1", "you", b"more")
    assert (later.ended, later.erased, later.meta) == (True, True, b"")
