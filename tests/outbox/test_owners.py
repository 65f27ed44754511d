"""Which process has which call, whatever stores it: takings, heirs, beats, orphans."""

import asyncio
import math

import pytest

from bridge.outbox.lease import CallLease, Erased, Fenced
from bridge.outbox.outbox import Line, Outbox
from bridge.outbox.owners import FORGOTTEN_S, PAUSE_S
from bridge.outbox.ownership import Known
from tests.outbox.events import Clock, event

SILENT_S = 10.0


async def beats(outbox: Outbox, clock: Clock, *nodes: str, seconds: float) -> None:
    """So many seconds in which these nodes beat every two."""
    for _ in range(round(seconds / 2)):
        clock.now += 2
        for node in nodes:
            await outbox.beat(node)


async def orphans(outbox: Outbox, limit: int = 50) -> list[str]:
    return [call.call_sid for call in await outbox.orphans(SILENT_S, limit)]


async def inherit(outbox: Outbox, heir: str, call: str = "CA1", node: str = "n2") -> CallLease | None:
    return await outbox.inherit(call, heir, b"heir's", node=node, silent_s=SILENT_S)


async def known(outbox: Outbox, call: str = "CA1") -> Known:
    found = await outbox.known(call)
    assert found is not None
    return found


async def test_the_first_meta_stays(outbox: Outbox) -> None:
    assert (await outbox.own_call("CA1", "me", b"")).meta == b""
    assert (await outbox.own_call("CA1", "me", b"first")).meta == b"first"
    lease = await outbox.own_call("CA1", "you", b"second")
    assert (lease.meta, lease.ended, lease.erased) == (b"first", False, False)


async def test_a_call_can_be_taken_from_a_certain_owner_only(outbox: Outbox) -> None:
    assert (await outbox.own_call("CA1", "new", b"", only_from="dead")).epoch == 1, "nobody had it"
    with pytest.raises(Fenced, match="CA1"):
        await outbox.own_call("CA1", "newer", b"", only_from="dead")
    assert (await outbox.own_call("CA1", "new", b"", only_from="dead")).epoch == 2, "asked again"
    assert (await outbox.own_call("CA1", "newer", b"", only_from="new")).epoch == 3
    assert (await outbox.own_call("CA1", "newest", b"")).epoch == 4


async def test_what_is_known_of_a_call(outbox: Outbox, clock: Clock) -> None:
    assert await outbox.known("CA1") is None
    lease = await outbox.own_call("CA1", "me", b"meta", node="n1")
    assert await known(outbox) == Known("CA1", "me", "n1", 0, "", ended=False, erased=False, meta=b"meta")
    await beats(outbox, clock, "n2", seconds=4)
    assert (await known(outbox)).silent_s == 4
    await outbox.publish(lease, [], {}, ended=True)
    assert (await known(outbox)).ended
    await outbox.erase("CA1")
    erased = await known(outbox)
    assert (erased.ended, erased.erased, erased.meta) == (True, True, b"")


async def test_a_note_replaces_what_was_said_of_a_call(outbox: Outbox, clock: Clock) -> None:
    lease = await outbox.own_call("CA1", "me", b"first")
    await outbox.note(lease, b"second")
    await outbox.note(lease, b"third")
    assert (await known(outbox)).meta == b"third"
    later = await outbox.own_call("CA1", "you", b"ignored")
    assert later.meta == b"third"
    with pytest.raises(Fenced, match="CA1"):
        await outbox.note(lease, b"late")
    await outbox.publish(later, [], {}, ended=True)
    clock.now += 60
    await outbox.purge(body_age_s=30, call_age_s=1e9)
    assert (await known(outbox)).meta == b"", "it goes with the transcript"
    await outbox.erase("CA1")
    for refused in (lease, later):
        with pytest.raises(Erased):
            await outbox.note(refused, b"more")
    assert (await known(outbox)).meta == b""


async def test_a_note_of_a_call_that_had_no_meta_goes_with_its_transcript_too(
    outbox: Outbox, clock: Clock
) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    await outbox.note(lease, b"about")
    await outbox.publish(lease, [], {}, ended=True)
    clock.now += 60
    await outbox.purge(body_age_s=30, call_age_s=1e9)
    assert (await known(outbox)).meta == b""


async def test_an_unknown_call_is_inherited_at_once(outbox: Outbox) -> None:
    lease = await inherit(outbox, "heir")
    assert lease == CallLease("CA1", "heir", 1, 1, {}, ended=False, meta=b"heir's")
    assert (await known(outbox)).node == "n2"


async def test_an_heir_waits_until_the_call_is_let_go(outbox: Outbox, clock: Clock) -> None:
    lease = await outbox.own_call("CA1", "me", b"meta", node="n1")
    await outbox.publish(lease, [event(1)], {"inbound": 160})
    assert await outbox.beat("n1") == {"CA1": ""}
    assert await inherit(outbox, "heir") is None
    assert await inherit(outbox, "heir") is None
    assert await outbox.beat("n1") == {"CA1": "heir"}
    assert await inherit(outbox, "later heir") is None
    assert await outbox.beat("n1") == {"CA1": "later heir"}
    assert (await known(outbox)).heir == "later heir"
    await outbox.let_go(lease)
    assert await outbox.beat("n1") == {}
    assert await orphans(outbox) == ["CA1"]
    assert ((await known(outbox)).owner, (await known(outbox)).heir) == ("", "later heir")
    taken = await inherit(outbox, "later heir")
    assert taken == CallLease("CA1", "later heir", 2, 2, {"inbound": 160}, ended=False, meta=b"meta")
    assert await outbox.beat("n2") == {"CA1": ""}
    assert await orphans(outbox) == []
    again = await inherit(outbox, "later heir")
    assert again is not None
    assert again.epoch == 3, "the answer may have been lost"
    clock.now += 1
    assert await inherit(outbox, "heir") is None, "the other one waits for the new owner"


async def test_an_heir_takes_the_call_when_its_node_is_silent(outbox: Outbox, clock: Clock) -> None:
    lease = await outbox.own_call("CA1", "me", b"", node="n1")
    await beats(outbox, clock, "n2", seconds=8)
    assert await inherit(outbox, "heir") is None
    await beats(outbox, clock, "n2", seconds=2)
    assert (await known(outbox)).silent_s == 10
    taken = await inherit(outbox, "heir")
    assert taken is not None
    assert await outbox.beat("n1") == {}
    with pytest.raises(Fenced):
        await outbox.publish(lease, [event(1)], {})


async def test_a_call_without_a_node_is_anybodys(outbox: Outbox) -> None:
    await outbox.own_call("CA1", "me", b"")
    assert (await known(outbox)).silent_s == math.inf
    assert await orphans(outbox) == ["CA1"]
    assert await inherit(outbox, "heir") is not None
    assert await orphans(outbox) == []


async def test_a_taker_learns_of_an_heir_who_still_waits_but_not_of_one_who_gave_up(outbox: Outbox) -> None:
    await outbox.own_call("CA1", "me", b"", node="n1")
    assert await inherit(outbox, "heir") is None
    await outbox.own_call("CA1", "another", b"", node="n3")
    assert await outbox.beat("n3") == {"CA1": ""}
    assert await inherit(outbox, "heir") is None
    assert await outbox.beat("n3") == {"CA1": "heir"}
    await outbox.own_call("CA1", "heir", b"", node="n2")
    assert await outbox.beat("n2") == {"CA1": ""}


async def test_a_call_that_has_ended_or_was_erased_has_nobody_to_wait_for(outbox: Outbox) -> None:
    for call in ("CA1", "CA2"):
        lease = await outbox.own_call(call, "me", b"meta", node="n1")
    await outbox.publish(lease, [event(1, call="CA2")], {}, ended=True)
    await outbox.erase("CA1")
    erased, ended = await inherit(outbox, "heir", "CA1"), await inherit(outbox, "heir", "CA2")
    assert erased is not None
    assert ended is not None
    assert (erased.erased, erased.ended, erased.meta) == (True, True, b"")
    assert (ended.erased, ended.ended, ended.next_sequence, ended.meta) == (False, True, 2, b"meta")
    with pytest.raises(Erased):
        await outbox.publish(erased, [], {})
    assert await outbox.beat("n2") == {}
    await outbox.let_go(ended)
    assert await orphans(outbox) == []


async def test_let_go_a_call_can_be_published_until_it_is_taken(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"", node="n1")
    await outbox.let_go(lease)
    await outbox.publish(lease, [event(1)], {"inbound": 5}, lines=[Line(1, "inbound", 0, 1, "one")])
    await outbox.note(lease, b"noted")
    taken = await outbox.own_call("CA1", "you", b"", node="n2", only_from="")
    assert (taken.next_sequence, dict(taken.watermarks), taken.meta) == (2, {"inbound": 5}, b"noted")
    with pytest.raises(Fenced):
        await outbox.publish(lease, [event(2)], {})
    await outbox.let_go(lease)
    assert (await known(outbox)).owner == "you", "too late: it has a newer owner"


async def test_of_those_who_take_a_call_from_nobody_one_gets_it(outbox: Outbox) -> None:
    await outbox.let_go(await outbox.own_call("CA1", "me", b"", node="n1"))
    with pytest.raises(Fenced):
        await outbox.own_call("CA1", "late", b"", only_from="me")
    await outbox.own_call("CA1", "first", b"", node="n2", only_from="")
    with pytest.raises(Fenced):
        await outbox.own_call("CA1", "second", b"", node="n3", only_from="")


async def test_of_many_who_take_an_orphan_at_the_same_time_one_gets_it(outbox: Outbox, clock: Clock) -> None:
    sids = [f"CA{n}" for n in range(10)]
    for sid in sids:
        await outbox.own_call(sid, "dead", b"", node="n0")
    await beats(outbox, clock, "n1", "n2", "n3", seconds=10)
    assert sorted(await orphans(outbox)) == sids

    async def reap(sid: str, node: str) -> CallLease | None:
        try:
            return await outbox.own_call(sid, f"{node}'s", b"", node=node, only_from="dead")
        except Fenced:
            return None

    for sid in sids:
        attempts = [reap(sid, node) for node in ("n1", "n2", "n3")]
        attempts += [inherit(outbox, f"heir {node}", sid, node) for node in ("n1", "n2")]
        taken = [lease for lease in await asyncio.gather(*attempts) if lease is not None]
        assert len(taken) == 1
        assert taken[0].epoch == 2
        assert (await known(outbox, sid)).owner == taken[0].owner


async def test_orphans_come_oldest_first_and_not_more_than_asked_for(outbox: Outbox, clock: Clock) -> None:
    for n, node in enumerate(("n1", "n2", "", "n1", "n3", "n2")):
        await outbox.own_call(f"CA{9 - n}", "me", b"", node=node)
        clock.now += 0.1
    await beats(outbox, clock, "n3", seconds=10)
    assert await orphans(outbox) == ["CA9", "CA8", "CA7", "CA6", "CA4"]
    assert await orphans(outbox, limit=3) == ["CA9", "CA8", "CA7"]
    first, *_ = await outbox.orphans(SILENT_S, 1)
    assert first == await known(outbox, "CA9")
    assert first.silent_s >= SILENT_S
    await outbox.beat("n2")
    assert await orphans(outbox) == ["CA9", "CA7", "CA6"]


async def test_who_takes_a_call_before_its_first_beat_lives(outbox: Outbox, clock: Clock) -> None:
    await beats(outbox, clock, "n1", seconds=20)
    await outbox.own_call("CA1", "me", b"", node="n2")
    assert await orphans(outbox) == []


async def test_a_store_that_was_away_makes_nobody_silent(outbox: Outbox, clock: Clock) -> None:
    for node in ("n1", "n2", "dead"):
        await outbox.own_call(f"CA-{node}", "me", b"", node=node)
    await beats(outbox, clock, "n1", "n2", seconds=6)
    clock.now += 60
    assert await orphans(outbox) == []
    assert (await known(outbox, "CA-dead")).silent_s == 6
    assert await outbox.inherit("CA-n1", "heir", b"", node="n2", silent_s=SILENT_S) is None
    await outbox.own_call("CA4", "me", b"", node="new")
    assert await orphans(outbox) == []
    await outbox.beat("n1")
    assert await orphans(outbox) == []
    await beats(outbox, clock, "n1", "n2", seconds=8)
    assert await orphans(outbox) == []
    await beats(outbox, clock, "n1", "n2", seconds=2)
    assert await orphans(outbox) == ["CA-dead", "CA4"]


async def test_a_short_pause_is_no_such_time(outbox: Outbox, clock: Clock) -> None:
    await outbox.own_call("CA1", "me", b"", node="dead")
    await beats(outbox, clock, "n1", seconds=6)
    clock.now += PAUSE_S - 0.5
    await outbox.beat("n1")
    assert await orphans(outbox) == ["CA1"]


async def test_a_clock_that_was_set_back_keeps_no_dead_node_alive(outbox: Outbox, clock: Clock) -> None:
    clock.now += 3600
    await outbox.own_call("CA1", "me", b"", node="dead")
    clock.now -= 3600
    await outbox.own_call("CA2", "me", b"", node="n1")
    await beats(outbox, clock, "n1", seconds=2)
    assert (await known(outbox)).silent_s == (await known(outbox, "CA2")).silent_s == 0
    await outbox.purge(body_age_s=1e9, call_age_s=1e9)
    await beats(outbox, clock, "n1", seconds=8)
    assert await orphans(outbox) == []
    await beats(outbox, clock, "n1", seconds=2)
    assert await orphans(outbox) == ["CA1"]


async def test_nodes_that_were_not_heard_for_a_day_are_forgotten_unless_they_have_calls(
    outbox: Outbox, clock: Clock
) -> None:
    clock.now += FORGOTTEN_S
    await outbox.beat("n1")
    clock.now -= FORGOTTEN_S
    ended = await outbox.own_call("CA1", "me", b"", node="without")
    await outbox.publish(ended, [], {}, ended=True)
    await outbox.own_call("CA2", "me", b"", node="with")
    for later_s, silent_s in ((FORGOTTEN_S - 1, FORGOTTEN_S - 1), (1, math.inf)):
        clock.now += later_s
        await outbox.beat("n1")
        await outbox.purge(body_age_s=1e9, call_age_s=1e9)
        assert (await known(outbox, "CA1")).silent_s == silent_s
    assert (await known(outbox, "CA2")).silent_s == FORGOTTEN_S


async def test_calls_and_lanes_of_a_node_that_died_are_free_at_once(outbox: Outbox, clock: Clock) -> None:
    for node in ("n1", "n2"):
        lease = await outbox.own_call(f"CA-{node}", "me", b"", node=node)
        await outbox.publish(lease, [event(1, call=f"CA-{node}")], {})
    (first,) = await outbox.claim("n1", 1, 30)
    (second,) = await outbox.claim("n2", 1, 30)
    outbox.wake.clear()
    await outbox.died("n1")
    assert outbox.wake.is_set()
    assert await orphans(outbox) == ["CA-n1"]
    assert (await known(outbox, "CA-n1")).silent_s == math.inf
    assert await inherit(outbox, "heir", "CA-n1") is not None
    assert await inherit(outbox, "heir", "CA-n2", "n3") is None
    with pytest.raises(Fenced):
        await outbox.ack(first, 1)
    (again,) = await outbox.claim("n3", 9, 30)
    assert again.lane == first.lane
    await outbox.ack(second, 1)
    await outbox.died("never was")
    clock.now += 2
    await outbox.beat("n1")
    await outbox.own_call("CA3", "me", b"", node="n1")
    assert await orphans(outbox) == [], "who speaks lives"
