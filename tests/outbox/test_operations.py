"""What operators ask of every outbox, whatever stores it: listings, replays, erasure, retention."""

import asyncio
from dataclasses import replace
from hashlib import sha256

import pytest

from bridge.outbox.lease import REPLAY, Erased, Fenced, LaneLease
from bridge.outbox.outbox import Outbox, Outgoing, Record, Selection, Stats, endpoint_tag, lane_name
from tests.outbox.events import A, B, Clock, claim_one, event, fill, sequences, work_off

ALL = Selection()
DAY_S = 86_400.0


async def listed(outbox: Outbox, selection: Selection = ALL, *, limit: int = 1000) -> list[Record]:
    return await outbox.records(selection, limit)


async def ids(outbox: Outbox, selection: Selection) -> list[str]:
    return [record.event_id for record in await listed(outbox, selection)]


async def states(outbox: Outbox) -> dict[tuple[str, str], str]:
    return {(record.endpoint, record.event_id): record.state for record in await listed(outbox)}


async def replay_lane(outbox: Outbox) -> LaneLease:
    lane = await claim_one(outbox)
    assert lane.replay
    return lane


async def test_a_record_shows_what_is_known_of_an_event(outbox: Outbox, clock: Clock) -> None:
    stored_at = clock.now
    await fill(outbox, event(1), event(2))
    one, two = reversed(await listed(outbox))
    assert one == Record(
        serial=one.serial,
        event_id="evt_CA1_1",
        endpoint=A,
        call_sid="CA1",
        sequence=1,
        type="transcript.final",
        state="pending",
        replay=False,
        kept=True,
        sha256=sha256(event(1).body).hexdigest(),
        created_at=stored_at,
        delivered_at=None,
        tries=0,
        last_status=None,
        last_error=None,
        due_at=stored_at,
    )
    assert two.serial > one.serial
    assert two.due_at is None, "not the head of its lane"


async def test_a_record_shows_what_became_of_an_event(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2), event(3))
    await outbox.retry(await claim_one(outbox), 1, 5, None, "timeout")
    (head,) = await listed(outbox, Selection(event_ids=("evt_CA1_1",)))
    assert (head.tries, head.last_status, head.last_error) == (1, None, "timeout")
    assert head.due_at == clock.now + 5
    clock.now += 5
    lane = await claim_one(outbox)
    (head,) = await listed(outbox, Selection(event_ids=("evt_CA1_1",)))
    assert head.due_at == clock.now + 30, "the end of the lease"
    await outbox.ack(lane, 1)
    await outbox.bury(lane, 2, 413, "status 413")
    three, two, one = await listed(outbox)
    assert (one.state, one.tries, one.delivered_at, one.due_at) == ("done", 2, clock.now, None)
    assert (two.state, two.tries, two.last_status, two.last_error) == ("dead", 1, 413, "status 413")
    assert (two.delivered_at, two.due_at, two.kept) == (None, None, True)
    assert (three.state, three.due_at) == ("pending", clock.now + 30)


async def test_records_are_listed_page_by_page_the_last_stored_first(outbox: Outbox) -> None:
    for n in range(1, 4):
        await fill(outbox, event(n))
        await fill(outbox, event(n, B))
    whole = await listed(outbox)
    assert [(record.endpoint, record.sequence) for record in whole] == [
        (B, 3), (A, 3), (B, 2), (A, 2), (B, 1), (A, 1),
    ]  # fmt: skip
    first = await outbox.records(ALL, 4)
    second = await outbox.records(ALL, 4, before=first[-1].serial)
    assert first + second == whole
    assert await outbox.records(ALL, 4, before=second[-1].serial) == []
    assert await outbox.records(ALL, 0) == []


async def test_records_are_selected_by_what_is_true_of_them(outbox: Outbox, clock: Clock) -> None:
    assert await listed(outbox) == []
    began = clock.now
    await fill(outbox, event(1), event(1, B))
    await work_off(outbox, "bury")  # one of the two
    clock.now += 10
    await fill(outbox, event(2), event(2, B))
    await work_off(outbox)
    clock.now += 10
    await fill(outbox, event(1, A, "CA2"), call="CA2")
    (dead,) = await listed(outbox, Selection(states=frozenset({"dead"})))
    assert dead.sequence == 1
    chosen = {
        "all": (ALL, 5),
        "an id, at both endpoints": (Selection(event_ids=("evt_CA1_1",)), 2),
        "an id at one": (Selection(event_ids=("evt_CA1_1",), endpoint=B), 1),
        "two ids": (Selection(event_ids=("evt_CA1_1", "evt_CA2_1", "evt_CA2_1")), 3),
        "no such id": (Selection(event_ids=("evt",)), 0),
        "an id of another call": (Selection(event_ids=("evt_CA1_1",), call_sid="CA2"), 0),
        "a call": (Selection(call_sid="CA1"), 4),
        "a call's dead": (Selection(call_sid="CA1", states=frozenset({"dead"})), 1),
        "no such call": (Selection(call_sid="CA9"), 0),
        "an endpoint": (Selection(endpoint=A), 3),
        "its tag": (Selection(endpoint=endpoint_tag(A)), 3),
        "no such endpoint": (Selection(endpoint="https://c.example/"), 0),
        "an endpoint's pending": (Selection(endpoint=A, states=frozenset({"pending"})), 1),
        "another's": (Selection(endpoint=B, states=frozenset({"pending"})), 0),
        "pending or dead": (Selection(states=frozenset({"pending", "dead"})), 2),
        "done": (Selection(states=frozenset({"done"})), 3),
        "done or dead": (Selection(states=frozenset({"done", "dead"})), 4),
        "erased": (Selection(states=frozenset({"erased"})), 0),
        "since": (Selection(since=began + 10), 3),
        "until": (Selection(until=began + 10), 2),
        "between": (Selection(since=began + 10, until=began + 20), 2),
        "dead since": (Selection(states=frozenset({"dead"}), since=began + 1), 0),
        "pending until": (Selection(states=frozenset({"pending"}), until=began + 20), 0),
        "done of a call at an endpoint": (
            Selection(call_sid="CA1", endpoint=B, states=frozenset({"done"}), since=began + 1),
            1,
        ),
    }
    whole = await listed(outbox)
    for name, (selection, count) in chosen.items():
        found = await listed(outbox, selection)
        assert len(found) == count, name
        assert found == [record for record in whole if record in found], name
        page = await outbox.records(selection, 1, before=whole[0].serial)
        assert page == [record for record in found if record != whole[0]][:1], name


async def test_a_dead_event_is_delivered_again_with_the_same_id_and_bytes(
    outbox: Outbox, clock: Clock
) -> None:
    stored_at = clock.now
    await fill(outbox, event(1))
    await work_off(outbox, "bury")
    clock.now += 100
    outbox.wake.clear()
    assert await outbox.replay(Selection(event_ids=("evt_CA1_1",))) == 1
    assert outbox.wake.is_set()
    (record,) = await listed(outbox)
    assert (record.state, record.replay, record.due_at) == ("pending", True, clock.now)
    assert (record.tries, record.last_error) == (1, "status 500"), "what happened before is still told"
    lane = await replay_lane(outbox)
    assert (lane.lane, lane.call_sid, lane.endpoint) == (lane_name(A, "CA1") + REPLAY, "CA1", A)
    assert (lane.head, lane.attempts, lane.first_failure) == (1, 0, None)
    (stored,) = await outbox.peek(lane)
    assert (stored.position, stored.sequence, stored.event_id, stored.type) == (
        1, 1, "evt_CA1_1", "transcript.final",
    )  # fmt: skip
    assert (stored.body, stored.created_at) == (event(1).body, stored_at)
    await outbox.ack(lane, stored.position)
    await outbox.release(lane)
    (record,) = await listed(outbox)
    assert (record.state, record.replay, record.tries) == ("done", True, 2)
    assert record.delivered_at == clock.now
    assert await outbox.stats() == Stats(pending=0, oldest_age_s=0.0, lanes_in_backoff=0, dead=0)


async def test_nothing_live_waits_for_a_replay_nor_a_replay_for_it(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2))
    lane = await claim_one(outbox)
    assert not lane.replay
    await outbox.bury(lane, 1, 500, "status 500")
    assert await outbox.replay(Selection(states=frozenset({"dead"}))) == 1
    again = await replay_lane(outbox)
    assert await sequences(outbox, lane) == [2]
    assert await sequences(outbox, again) == [1]
    await outbox.retry(again, 1, 60, 500, "status 500")
    await fill(outbox, event(3))
    assert await outbox.ack(lane, 2)
    assert await sequences(outbox, lane) == [3]


async def test_replays_keep_the_order_of_their_call(outbox: Outbox) -> None:
    await fill(outbox, *(event(n) for n in range(1, 7)))
    await work_off(outbox, "bury", "bury", "ack", "bury", "bury", "ack")
    assert await outbox.replay(Selection(event_ids=("evt_CA1_5", "evt_CA1_2"))) == 2
    assert await outbox.replay(Selection(call_sid="CA1", states=frozenset({"dead"}))) == 2
    lane = await replay_lane(outbox)
    assert await sequences(outbox, lane) == [2, 5, 1, 4], "each replay in order, one after the other"
    assert [stored.position for stored in await outbox.peek(lane)] == [1, 2, 3, 4]


async def test_an_event_that_dies_again_goes_to_the_end_of_the_same_lane(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2))
    await work_off(outbox, "bury", "bury")
    assert await outbox.replay(ALL) == 2
    lane = await replay_lane(outbox)
    await outbox.bury(lane, 1, 500, "status 500")
    assert await outbox.replay(Selection(states=frozenset({"dead"}))) == 1
    assert [(s.position, s.sequence) for s in await outbox.peek(lane)] == [(2, 2), (3, 1)]
    await outbox.ack(lane, 2)
    await outbox.bury(lane, 3, 500, "status 500")
    await outbox.release(lane)
    assert await outbox.replay(ALL) == 1
    lane = await replay_lane(outbox)
    assert (lane.head, lane.first_failure) == (4, None)
    assert await sequences(outbox, lane) == [1]
    assert (await listed(outbox))[-1].tries == 3


async def test_a_replay_begins_with_a_clean_slate(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1))
    await work_off(outbox, "bury")
    await outbox.replay(ALL)
    await outbox.retry(await replay_lane(outbox), 1, 0, 500, "status 500")
    lane = await replay_lane(outbox)
    await outbox.bury(lane, 1, 500, "status 500")
    await outbox.release(lane)
    clock.now += DAY_S
    await outbox.replay(ALL)
    lane = await replay_lane(outbox)
    assert (lane.head, lane.attempts, lane.first_failure) == (2, 0, None), "the last outage is not this one's"


async def test_delivered_events_are_delivered_again_if_they_are_meant_and_kept(
    outbox: Outbox, clock: Clock
) -> None:
    await fill(outbox, event(1), event(2))
    await work_off(outbox)
    assert await outbox.replay(Selection(call_sid="CA1")) == 0
    assert await outbox.replay(Selection(call_sid="CA1", states=frozenset({"done"}))) == 2
    assert await sequences(outbox, await replay_lane(outbox)) == [1, 2]
    assert [record.delivered_at for record in await listed(outbox)] == [None, None]
    clock.now += 31
    await work_off(outbox)
    assert await outbox.purge(body_age_s=0, call_age_s=DAY_S) is False
    assert await outbox.replay(Selection(states=frozenset({"done", "dead"}))) == 0
    assert await outbox.claim("me", 10, 30) == []


async def test_a_delivered_event_of_any_age_is_found(outbox: Outbox) -> None:
    await fill(outbox, event(1))
    await work_off(outbox)
    assert await outbox.replay(Selection(states=frozenset({"done"}))) == 1
    assert await sequences(outbox, await replay_lane(outbox)) == [1]


async def test_a_pending_event_stays_in_its_lane_which_becomes_due_at_once(
    outbox: Outbox, clock: Clock
) -> None:
    await fill(outbox, event(1), event(2), event(1, B))
    for lane in await outbox.claim("me", 10, 30):
        await outbox.retry(lane, 1, 600, 500, "status 500")
    clock.now += 1
    outbox.wake.clear()
    assert await outbox.replay(Selection(event_ids=("evt_CA1_2",), endpoint=A)) == 1
    assert outbox.wake.is_set()
    lane = await claim_one(outbox)
    assert (lane.lane, lane.replay) == (lane_name(A, "CA1"), False)
    assert (lane.head, lane.attempts, lane.first_failure) == (1, 0, None)
    assert await sequences(outbox, lane) == [1, 2]
    assert await outbox.next_due(without=[A]) == 599
    assert await outbox.replay(ALL) == 3


async def test_who_delivers_a_lane_is_not_disturbed_by_a_replay(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2))
    lane = await claim_one(outbox)
    clock.now += 10
    assert await outbox.replay(Selection(call_sid="CA1")) == 2, "they will be delivered as it is"
    assert await outbox.claim("you", 10, 30) == []
    assert await outbox.next_due() == 20
    await outbox.ack(lane, 1)
    assert await sequences(outbox, lane) == [2]


async def test_a_replay_that_means_the_dead_only_leaves_pending_ones_in_their_backoff(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2))
    lane = await claim_one(outbox)
    await outbox.bury(lane, 1, 500, "status 500")
    await outbox.retry(lane, 2, 600, 500, "status 500")
    assert await outbox.replay(Selection(states=frozenset({"dead"}))) == 1
    assert (await replay_lane(outbox)).head == 1
    assert await outbox.replay(Selection(states=frozenset({"erased"}))) == 0


@pytest.mark.parametrize("named", [A, endpoint_tag(A)])
async def test_a_replay_that_names_an_endpoint_ends_its_pause(outbox: Outbox, named: str) -> None:
    await fill(outbox, event(1), event(1, B))
    await outbox.pause(A, "status 410")
    await outbox.pause(B, "status 410")
    await outbox.replay(Selection(endpoint=named, states=frozenset({"dead"})))
    assert (await claim_one(outbox)).endpoint == A


async def test_a_replay_ends_the_pause_of_the_endpoints_of_its_events(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(1, B, "CA2"))
    await fill(outbox, event(1, B, "CA2"), call="CA2")
    for lane in await outbox.claim("me", 10, 30):
        if lane.endpoint == A:
            await outbox.bury(lane, 1, 500, "status 500")
        await outbox.release(lane)
    await outbox.pause(A, "status 410")
    await outbox.pause(B, "status 410")
    assert await outbox.replay(Selection(event_ids=("evt_CA1_1",))) == 1
    assert (await replay_lane(outbox)).endpoint == A
    assert await outbox.replay(Selection(call_sid="CA9")) == 0
    assert await outbox.claim("me", 10, 30) == []


async def test_a_large_replay_keeps_the_order(outbox: Outbox) -> None:
    for call in ("CA1", "CA2"):
        lease = await outbox.own_call(call, "me", b"")
        await outbox.publish(lease, [event(n, A, call) for n in range(1, 601)], {})
    for lane in await outbox.claim("me", 10, 30):
        for n in range(1, 601):
            await outbox.bury(lane, n, 500, "status 500")
    assert (await outbox.stats()).dead == 1200
    assert await outbox.replay(ALL) == 1200
    for lane in await outbox.claim("me", 10, 30):
        assert [stored.sequence for stored in await outbox.peek(lane, 1000)] == list(range(1, 601))


async def test_a_repeated_publish_of_a_replayed_event_is_success(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1), event(2)], {})
    await work_off(outbox, "bury")
    await outbox.replay(ALL)
    await outbox.publish(lease, [event(1), event(2)], {})
    assert await sequences(outbox, await replay_lane(outbox)) == [1]
    with pytest.raises(ValueError, match="another event"):
        await outbox.publish(lease, [replace(event(2), event_id="evt_other")], {})


async def test_erasing_removes_bodies_and_keeps_hashes(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2), event(3), event(1, B))
    await fill(outbox, event(1, A, "CA2"), call="CA2")
    for lane in await outbox.claim("me", 10, 30):
        if (lane.endpoint, lane.call_sid) == (A, "CA1"):
            await outbox.ack(lane, 1)
            await outbox.bury(lane, 2, 500, "status 500")
        await outbox.release(lane)
    assert await outbox.erase("CA1") == 4
    found = await listed(outbox, Selection(call_sid="CA1"))
    assert {(r.endpoint, r.sequence): r.state for r in found} == {
        (A, 1): "done", (A, 2): "dead", (A, 3): "erased", (B, 1): "erased",
    }  # fmt: skip
    assert not any(record.kept for record in found)
    assert {r.sha256 for r in found if r.endpoint == A} == {
        sha256(event(n).body).hexdigest() for n in (1, 2, 3)
    }
    assert [lane.call_sid for lane in await outbox.claim("me", 10, 30)] == ["CA2"]
    assert await outbox.stats() == Stats(pending=1, oldest_age_s=0.0, lanes_in_backoff=0, dead=1)
    assert await outbox.erase("CA1") == 0, "there is nothing left"
    assert await outbox.erase("CA9") == 0, "nor of a call that never was"


async def test_what_is_erased_is_not_replayed(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2), event(3))
    await work_off(outbox, "bury", "ack", "bury")
    assert await outbox.replay(Selection(event_ids=("evt_CA1_3",))) == 1
    await outbox.erase("CA1")
    assert await outbox.replay(Selection(states=frozenset({"dead", "done", "erased", "pending"}))) == 0
    assert await states(outbox) == {
        (A, "evt_CA1_1"): "dead", (A, "evt_CA1_2"): "done", (A, "evt_CA1_3"): "erased",
    }  # fmt: skip
    assert await outbox.claim("me", 10, 30) == []
    assert await outbox.next_due() is None


async def test_who_delivers_an_erased_call_is_fenced(outbox: Outbox) -> None:
    await fill(outbox, event(1), event(2))
    lane = await claim_one(outbox)
    await outbox.erase("CA1")
    for late in (
        outbox.peek(lane),
        outbox.ack(lane, 1),
        outbox.retry(lane, 1, 1, None, "x"),
        outbox.bury(lane, 1, None, "x"),
    ):
        with pytest.raises(Fenced):
            await late
    await outbox.release(lane)
    assert await outbox.claim("me", 10, 30) == []
    assert {record.state for record in await listed(outbox)} == {"erased"}


async def test_who_owns_an_erased_call_cannot_publish_any_more(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"meta")
    await outbox.publish(lease, [event(1)], {"inbound": 8000})
    await outbox.erase("CA1")
    for events in ([event(2)], [event(1)], []):
        with pytest.raises(Erased, match="CA1 was erased"):
            await outbox.publish(lease, events, {})
    later = await outbox.own_call("CA1", "you", b"meta")
    assert (later.ended, later.next_sequence) == (True, 2)
    assert later.epoch > lease.epoch
    with pytest.raises(Erased):
        await outbox.publish(later, [event(2)], {})
    assert (await outbox.stats()).pending == 0


async def test_a_call_that_has_no_event_yet_can_be_erased(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    assert await outbox.erase("CA1") == 0
    with pytest.raises(Erased):
        await outbox.publish(lease, [event(1)], {})


async def test_a_body_goes_when_its_time_is_over(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2), event(3), event(4))
    lane = await claim_one(outbox)
    await outbox.ack(lane, 1)
    clock.now += 20
    await outbox.ack(lane, 2)
    await outbox.bury(lane, 3, 500, "status 500")
    clock.now += 79
    assert await outbox.purge(body_age_s=100, call_age_s=DAY_S) is False
    assert all(record.kept for record in await listed(outbox))
    clock.now += 1
    assert await outbox.purge(body_age_s=100, call_age_s=DAY_S) is False
    assert {record.sequence: record.kept for record in await listed(outbox)} == {
        1: False, 2: True, 3: True, 4: True,
    }  # fmt: skip
    assert await outbox.purge(body_age_s=0, call_age_s=DAY_S) is False
    kept = {record.sequence: record.kept for record in await listed(outbox)}
    assert kept == {1: False, 2: False, 3: True, 4: True}, "no dead letter, and nothing pending"
    assert (await listed(outbox))[-1].sha256 == sha256(event(1).body).hexdigest()


async def test_a_call_goes_when_its_time_is_over(outbox: Outbox, clock: Clock) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1), event(2), event(1, B)], {"inbound": 8000})
    clock.now += 50
    await fill(outbox, event(1, A, "CA2"), call="CA2")
    await work_off(outbox, "bury", "bury", "bury", "bury")
    await outbox.replay(Selection(event_ids=("evt_CA1_2",)))
    await work_off(outbox)
    clock.now += DAY_S - 51
    assert await outbox.purge(body_age_s=10 * DAY_S, call_age_s=DAY_S) is False
    assert len(await listed(outbox)) == 4
    clock.now += 1
    assert await outbox.purge(body_age_s=10 * DAY_S, call_age_s=DAY_S) is False
    assert await ids(outbox, ALL) == ["evt_CA2_1"], "with its dead letters and replays"
    assert (await outbox.stats()).dead == 1
    again = await outbox.own_call("CA1", "me", b"")
    assert (again.epoch, again.next_sequence, dict(again.watermarks)) == (1, 1, {})
    await outbox.publish(again, [event(1)], {})
    assert await sequences(outbox, await claim_one(outbox)) == [1], "as if it had never been"


async def test_what_is_pending_is_kept_for_ever_with_its_call(outbox: Outbox, clock: Clock) -> None:
    await fill(outbox, event(1), event(2), event(1, B))
    for lane in await outbox.claim("me", 10, 30):
        if lane.endpoint == A:
            await outbox.ack(lane, 1)
            await outbox.release(lane)
        else:
            await outbox.bury(lane, 1, 500, "status 500")
            await outbox.release(lane)
    await outbox.pause(A, "status 410")
    clock.now += 100 * DAY_S
    assert await outbox.purge(body_age_s=0, call_age_s=0) is False
    assert sorted((r.endpoint, r.sequence, r.kept) for r in await listed(outbox)) == [
        (A, 1, False), (A, 2, True), (B, 1, True),
    ]  # fmt: skip
    assert await outbox.replay(Selection(endpoint=A)) == 1
    await work_off(outbox)
    assert await outbox.purge(body_age_s=0, call_age_s=0) is False
    assert await listed(outbox) == []


async def test_an_erased_call_goes_too(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1)], {})
    await outbox.erase("CA1")
    assert await outbox.purge(body_age_s=0, call_age_s=0) is False
    assert await listed(outbox) == []
    with pytest.raises(Fenced):
        await outbox.publish(lease, [event(2)], {})


async def test_much_is_removed_in_small_bites(outbox: Outbox) -> None:
    for call in ("CA1", "CA2", "CA3"):
        lease = await outbox.own_call(call, "me", b"")
        await outbox.publish(lease, [event(n, A, call) for n in range(1, 9)], {"inbound": 1})
    await work_off(outbox)
    bites = 0
    while await outbox.purge(body_age_s=0, call_age_s=DAY_S, limit=10):
        bites += 1
        assert sum(record.kept for record in await listed(outbox)) == max(0, 24 - 10 * bites)
    assert bites == 2
    bites, rows = 0, 24
    while await outbox.purge(body_age_s=0, call_age_s=0, limit=10):
        bites += 1
        rows, before = len(await listed(outbox)), rows
        assert before - rows <= 10
    assert bites >= 2
    assert await listed(outbox) == []


async def test_a_repeated_publish_of_an_event_without_its_body_is_success(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.publish(lease, [event(1)], {})
    await work_off(outbox)
    await outbox.purge(body_age_s=0, call_age_s=DAY_S)
    await outbox.publish(lease, [event(1)], {})
    assert await outbox.claim("me", 10, 30) == []


async def test_operations_and_publishes_at_the_same_time(outbox: Outbox) -> None:
    async def call(name: str) -> None:
        lease = await outbox.own_call(name, "me", b"")
        for n in range(1, 11):
            await outbox.publish(lease, [event(n, A, name)], {"inbound": n})

    async def operate() -> None:
        for _ in range(10):
            await outbox.replay(ALL)
            await outbox.records(ALL, 10)
            await outbox.purge(body_age_s=0, call_age_s=DAY_S)
            await outbox.erase("CA0")

    async with asyncio.TaskGroup() as group:
        group.create_task(operate())
        for n in range(1, 9):
            group.create_task(call(f"CA{n}"))
    assert (await outbox.stats()).pending == 80
    for lane in await outbox.claim("me", 10, 30):
        assert await sequences(outbox, lane) == list(range(1, 11))


async def test_an_event_of_no_text_is_an_event(outbox: Outbox) -> None:
    await fill(outbox, Outgoing(A, 1, "evt_empty", "call.started", b""))
    (record,) = await listed(outbox)
    assert record.kept
    await work_off(outbox)
    assert await outbox.purge(body_age_s=0, call_age_s=DAY_S) is False
    assert not (await listed(outbox))[0].kept


async def test_who_took_part_is_forgotten_with_what_was_said(outbox: Outbox, clock: Clock) -> None:
    lease = await outbox.own_call("CA1", "me", b"+15550100")
    await outbox.publish(lease, [], {}, ended=True)
    clock.now += 9
    await outbox.purge(body_age_s=10, call_age_s=1e9)
    assert (await outbox.own_call("CA1", "me", b"")).meta == b"+15550100"
    clock.now += 11
    await outbox.purge(body_age_s=10, call_age_s=1e9)
    later = await outbox.own_call("CA1", "me", b"")
    assert (later.meta, later.ended) == (b"", True)
