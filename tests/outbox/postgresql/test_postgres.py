"""What is particular about an outbox that several processes share: each store here stands for one of them."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from bridge.outbox.lease import REPLAY, Fenced, LaneLease
from bridge.outbox.outbox import Line, OutboxDown, OutboxFull, Outgoing, Selection, State, lane_name
from bridge.outbox.postgresql import lanes, operations, pool
from bridge.outbox.postgresql.postgres import Postgres
from tests.doubles.postgres import PostgresServer, several_hosts

A, B = "https://a.example/hook", "https://b.example/hook"

Stores = tuple[Postgres, Postgres]


def event(sequence: int, call: str = "CA1", endpoint: str = A) -> Outgoing:
    return Outgoing(endpoint, sequence, f"evt_{call}_{sequence}", "t", b"%d" % sequence)


async def patiently(operation: Callable[[], Awaitable[object]], deadline_s: float = 20) -> int:
    """Repeat it until the outbox takes it, as publishers do; how often it did not."""
    refused = 0
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                await operation()
            except OutboxDown:
                refused += 1
                await asyncio.sleep(0.02)
            else:
                return refused


async def deliver(store: Postgres, limit: int = 100) -> list[tuple[str, int]]:
    """Accept what is due; call and sequence of each in order."""
    accepted = []
    for lane in await store.claim("me", limit, 30):
        for stored in await store.peek(lane):
            await store.ack(lane, stored.position)
            accepted.append((lane.call_sid, stored.sequence))
        await store.release(lane)
    return accepted


async def test_what_one_publishes_another_delivers(stores: Stores) -> None:
    one, two = stores
    await one.publish(await one.own_call("CA1", "one", b""), [event(1), event(2)], {})
    assert await deliver(two) == [("CA1", 1), ("CA1", 2)]
    assert await one.next_due() is None


async def test_who_took_a_call_over_goes_on_where_the_other_was_and_fences_it_off(stores: Stores) -> None:
    one, two = stores
    old = await one.own_call("CA1", "one", b"")
    await one.publish(old, [event(1)], {"inbound": 8000})
    new = await two.own_call("CA1", "two", b"")
    assert (new.epoch, new.next_sequence, dict(new.watermarks)) == (2, 2, {"inbound": 8000})
    with pytest.raises(Fenced):
        await one.publish(old, [event(2)], {"inbound": 9000})
    await two.publish(new, [event(2)], {})


async def test_silence_is_told_by_the_clock_of_the_database(stores: Stores) -> None:
    one, two = stores
    await one.own_call("CA1", "one", b"", node="n1")
    assert await two.inherit("CA1", "two", b"", node="n2", silent_s=30) is None
    async with asyncio.timeout(20):
        while not await two.orphans(0.05, 10):
            await two.beat("n2")
    (orphan,) = await one.orphans(0.05, 10)
    assert (orphan.owner, orphan.heir) == ("one", "two")
    assert 0.05 <= orphan.silent_s < 20
    assert (await two.own_call("CA1", "two", b"", node="n2", only_from=orphan.owner)).epoch == 2


async def test_an_heir_who_asks_again_writes_nothing(stores: Stores, postgres_server: PostgresServer) -> None:
    async def version() -> list[Any]:
        return await postgres_server.query("select ctid, xmin, xmax from whisper_bridge.calls")

    one, two = stores
    lease = await one.own_call("CA1", "one", b"", node="n1")
    assert await two.inherit("CA1", "two", b"", node="n2", silent_s=30) is None
    noted = await version()
    assert await two.inherit("CA1", "two", b"", node="n2", silent_s=30) is None
    assert await version() == noted
    await one.publish(lease, [], {"inbound": 1})
    assert await one.beat("n1") == {"CA1": "two"}


async def test_who_takes_calls_beats_and_cleans_up_at_the_same_time_gets_on(stores: Stores) -> None:
    async def live(store: Postgres, node: str) -> None:
        for n in range(15):
            lease = await store.own_call(f"CA{n}", node, b"", node=node)
            await store.beat(f"{node}, another life {n}")
            await store.purge(body_age_s=0, call_age_s=1e9)
            await store.inherit(f"CA{n + 1}", node, b"", node=node, silent_s=0)
            await store.let_go(lease)

    # An OutboxDown out of here is a deadlock.
    await asyncio.gather(*(live(store, f"n{n}") for n, store in enumerate(stores * 3)))


async def test_a_take_over_during_a_publish_sees_all_of_it_or_fences_it_off(stores: Stores) -> None:
    one, two = stores
    for n in range(30):
        call = f"CA{n}"
        lease = await one.own_call(call, "one", b"")
        publishing = asyncio.create_task(
            one.publish(lease, [event(1, call), event(2, call)], {"inbound": 160})
        )
        await asyncio.sleep(random.random() * 0.003)
        taken = await two.own_call(call, "two", b"")
        stored = (taken.next_sequence, dict(taken.watermarks))
        try:
            await publishing
        except Fenced:
            assert stored == (1, {})
        else:
            assert stored == (3, {"inbound": 160})


async def test_a_lane_is_leased_to_one_of_many_who_ask_at_the_same_time(stores: Stores) -> None:
    for n in range(40):
        call = f"CA{n}"
        await stores[0].publish(await stores[0].own_call(call, "me", b""), [event(1, call)], {})
    asked = await asyncio.gather(*(store.claim(f"{n}", 5, 30) for n in range(8) for store in stores))
    names = [lane.lane for claimed in asked for lane in claimed]
    names += [lane.lane for lane in await stores[0].claim("me", 100, 30)]
    assert len(names) == len(set(names)) == 40


async def test_nobody_waits_for_a_lane_that_somebody_else_works_on(stores: Stores) -> None:
    one, two = stores
    for call in ("CA1", "CA2"):
        await one.publish(await one.own_call(call, "me", b""), [event(1, call)], {})

    async def hold(connection: pool.Connection) -> None:
        async with connection.transaction():
            await connection.execute(
                "select 1 from whisper_bridge.lanes where lane = $1 for update", lane_name(A, "CA1")
            )
            locked.set()
            await done.wait()

    locked, done = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(one._pool.run(hold))
    await locked.wait()
    assert [lane.call_sid for lane in await two.claim("two", 10, 30)] == ["CA2"]
    done.set()
    await holding
    assert [lane.call_sid for lane in await two.claim("two", 10, 30)] == ["CA1"]


async def test_a_claim_locks_and_writes_no_more_than_it_leases(
    stores: Stores, postgres_server: PostgresServer
) -> None:
    await postgres_server.query(
        "insert into whisper_bridge.endpoints select 'https://' || n || '.example/' from generate_series(0, 19) as n"
    )
    await postgres_server.query(
        """insert into whisper_bridge.lanes (lane, endpoint, call_sid, next, due_at)
           select 'lane' || n, 'https://' || n % 20 || '.example/', 'CA' || n, 2, n from generate_series(1, 400) as n"""
    )
    claimed = await stores[0].claim("me", 30, 30, each=10)
    assert {lane.lane for lane in claimed} == {f"lane{n}" for n in range(1, 31)}
    (row,) = await postgres_server.query(
        "select count(*) as touched from whisper_bridge.lanes where xmax::text <> '0' or epoch > 0"
    )
    assert row["touched"] == 30


async def test_who_claims_while_others_do_gets_what_he_asked_for(stores: Stores) -> None:
    one, two = stores
    for n in range(12):
        await one.publish(await one.own_call(f"CA{n}", "me", b""), [event(1, f"CA{n}")], {})

    async def hold(connection: pool.Connection) -> list[LaneLease]:
        async with connection.transaction():
            leases = await lanes.claim(connection, owner="one", limit=5, lease_s=30, each=5, room={}, at=None)
            claimed.set()
            await done.wait()
            return leases

    claimed, done = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(one._pool.run(hold))
    await claimed.wait()
    second = await two.claim("two", 5, 30, each=5)
    done.set()
    names = {lane.lane for lane in [*await holding, *second]}
    assert (len(second), len(names)) == (5, 10)
    assert len(await two.claim("two", 5, 30, each=5)) == 2


async def test_replays_of_what_is_paused_get_on_with_each_other_and_with_publishes(stores: Stores) -> None:
    one, two = stores
    ends = [f"https://{letter}.example/" for letter in "fedcba"]

    async def call(store: Postgres, sid: str) -> None:
        lease = await store.own_call(sid, "me", b"")
        await store.publish(lease, [event(1, sid, end) for end in ends], {})

    async def calls(store: Postgres, name: str) -> None:
        for n in range(10):
            await call(store, f"CA{name}{n}")

    await asyncio.gather(*(call(one, f"CA{n}") for n in range(40)))
    for n in range(4):
        for lane in await one.claim("me", 1000, 30, each=1000):
            await one.bury(lane, lane.head, 500, "status 500")
        for end in ends:
            await one.pause(end, "status 410")
        # An OutboxDown out of here is a deadlock.
        await asyncio.gather(
            *(store.replay(Selection(states=frozenset(("dead",)))) for store in stores),
            *(calls(store, f"-{n}-{m}-") for m, store in enumerate((one, two, two))),
        )
    assert await one.next_due() == 0


async def test_a_replay_makes_lanes_due_bite_by_bite(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "BITE", 2)
    one, _ = stores
    for n in range(5):
        await one.publish(
            await one.own_call(f"CA{n}", "me", b""), [event(1, f"CA{n}"), event(2, f"CA{n}")], {}
        )
    for lane in await one.claim("me", 10, 30):
        await one.retry(lane, 1, 500, 500, "status 500")
    assert await one.claim("me", 10, 30) == []
    assert await one.replay(Selection(event_ids=("evt_CA1_2", "evt_CA2_1", "evt_CA4_1"))) == 3
    assert {lane.call_sid for lane in await one.claim("me", 10, 30)} == {"CA1", "CA2", "CA4"}
    assert await one.replay(Selection(call_sid="CA0")) == 2
    assert await one.replay(Selection(endpoint=A)) == 10
    assert {lane.call_sid for lane in await one.claim("me", 10, 30)} == {"CA0", "CA3"}


async def test_what_was_delivered_long_ago_does_not_slow_down_a_look_at_what_waits(
    stores: Stores, postgres_server: PostgresServer
) -> None:
    await postgres_server.query(
        """insert into whisper_bridge.events (lane, position, sequence, event_id, type, sha256, state, created_at)
           select 'lane', n, n, 'evt' || n, 't', '', 'done', n from generate_series(1, 5000) as n"""
    )
    await postgres_server.query("analyze whisper_bridge.events")
    one, _ = stores
    plans: list[str] = []

    class Explained:
        """Has the plan of a query made, and then its rows."""

        def __init__(self, connection: pool.Connection) -> None:
            self.connection = connection

        def __getattr__(self, name: str) -> Any:
            async def ask(query: str, *values: Any) -> Any:
                plan = await self.connection.fetch(f"explain {query}", *values)
                plans.append("\n".join(row[0] for row in plan))
                return await getattr(self.connection, name)(query, *values)

            return ask

    async def look(connection: pool.Connection) -> None:
        seen = Explained(connection)
        pending = Selection(states=frozenset(("pending",)))
        assert await operations.records(seen, selection=pending, limit=10, before=None) == []
        assert (await lanes.stats(seen, at=None)).pending == 0

    await one._pool.run(look)
    assert len(plans) == 3
    assert sum("using events_pending" in plan for plan in plans) == 2
    assert not [plan for plan in plans if "Seq Scan on events" in plan]


async def test_a_clock_that_was_set_back_holds_nothing_up(postgres_url: str) -> None:
    """Another server took over, and its clock is behind: processes have gone on, none opened its store."""
    now = 1_000_000.0
    store = Postgres(postgres_url, lambda: now)
    await store.open()
    for n in range(3):
        await store.publish(await store.own_call(f"CA{n}", "me", b""), [event(1, f"CA{n}")], {})
    (held,) = await store.claim("me", 1, 30)
    now = 1000.0
    assert await store.claim("me", 10, 30) == []
    assert await store.purge(body_age_s=1e9, call_age_s=1e9, limit=2)
    assert not await store.purge(body_age_s=1e9, call_age_s=1e9, limit=2)
    assert len(await store.claim("you", 10, 30)) == 2
    await store.ack(held, 1)
    await store.close()


async def test_two_publishes_of_the_same_are_one(stores: Stores) -> None:
    one, two = stores
    for n in range(20):
        call = f"CA{n}"
        lease = await one.own_call(call, "me", b"")
        events = [event(1, call), event(2, call), event(1, call, B)]
        await asyncio.gather(one.publish(lease, events, {}), two.publish(lease, events[::-1][1:], {}),
                             return_exceptions=True)  # fmt: skip
        await one.publish(lease, events, {})
    assert (await one.stats()).pending == 60


async def test_the_time_is_the_databases(stores: Stores, postgres_server: PostgresServer) -> None:
    one, _ = stores
    await one.publish(await one.own_call("CA1", "me", b""), [event(1)], {})
    (lane,) = await one.claim("me", 1, 30)
    (stored,) = await one.peek(lane)
    (row,) = await postgres_server.query("select extract(epoch from clock_timestamp())::float8 as now")
    assert 0 <= row["now"] - stored.created_at < 5
    due = await one.next_due()
    assert due is not None
    assert 25 < due <= 30
    await one.retry(lane, 1, 0, 500, "status 500")
    assert [lane.attempts for lane in await one.claim("me", 1, 30)] == [1]


async def test_a_restart_of_the_server_is_no_more_than_a_pause(own_server: PostgresServer) -> None:
    store = Postgres(own_server.url)
    await store.open()
    lease = await store.own_call("CA1", "me", b"")
    await store.publish(lease, [event(1)], {"inbound": 1})
    await own_server.kill()
    began = time.monotonic()
    with pytest.raises(OutboxDown):
        await store.publish(lease, [event(2)], {"inbound": 2})
    assert time.monotonic() - began < pool.ACQUIRE_S
    restart = asyncio.create_task(own_server.start())
    assert await patiently(lambda: store.publish(lease, [event(2)], {"inbound": 2})) > 0
    await restart
    assert await deliver(store) == [("CA1", 1), ("CA1", 2)]
    await store.close()


async def test_a_publish_waits_for_the_standby_and_what_it_confirmed_survives_the_primary(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "COMMAND_S", 1.0)
    standby = await own_server.standby()
    store = Postgres(several_hosts([own_server, standby]))
    try:
        await store.open()
        lease = await store.own_call("CA1", "me", b"")
        await standby.freeze()
        for _ in range(2):  # a repeat is no confirmation of the first one either
            with pytest.raises(OutboxDown, match="no answer in time"):
                await store.publish(lease, [event(1)], {"inbound": 1})
        await standby.thaw()
        await patiently(lambda: store.publish(lease, [event(1), event(2)], {"inbound": 2}))

        await own_server.kill()
        publishing = asyncio.create_task(
            patiently(lambda: store.publish(lease, [event(3)], {"inbound": 3}, ended=True))
        )
        await standby.promote()
        await publishing
        again = await store.own_call("CA1", "me", b"")
        assert (again.next_sequence, dict(again.watermarks), again.ended) == (4, {"inbound": 3}, True)
        assert await deliver(store) == [("CA1", 1), ("CA1", 2), ("CA1", 3)]
    finally:
        await store.close()
        await standby.remove()


async def test_an_acceptance_whose_outcome_is_unknown_is_not_taken_twice(stores: Stores) -> None:
    one, two = stores
    await one.publish(await one.own_call("CA1", "me", b""), [event(1), event(2)], {})
    (lane,) = await one.claim("me", 1, 30)
    await one.ack(lane, 1)
    with pytest.raises(Fenced):
        await two.ack(lane, 1)
    assert [stored.position for stored in await two.peek(lane)] == [2]


async def test_a_character_that_postgresql_has_not_does_not_hold_up_a_call(stores: Stores) -> None:
    one, _ = stores
    lease = await one.own_call("CA1", "me", b"\0")
    lines = [Line(1, "inbound", 0, 1, "a\0b"), Line(2, "inbound", 1, 2, 'č "\\u0000"')]
    await one.publish(lease, [Outgoing(A, 1, "e", "t", b"\0\xff")], {}, lines=lines)
    assert [line.text for line in await one.transcript("CA1")] == ["ab", 'č "\\u0000"']
    (lane,) = await one.claim("me", 1, 30)
    assert (await one.peek(lane))[0].body == b"\0\xff"


async def test_no_statement_makes_the_driver_ask_about_types(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its question comes in the middle of a statement: it costs a while, and behind a pooler it never ends."""

    async def ask(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the type of an argument or a result is not known to the driver")

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", ask)
    store = Postgres(postgres_url)
    await store.open()
    lease = await store.own_call("CA1", "me", b"")
    events = [event(1), event(2), event(1, endpoint=B)]
    await store.publish(lease, events, {"inbound": 1}, lines=[Line(1, "inbound", 0, 1, "one")], ended=True)
    await store.transcript("CA1")
    await store.spend("nonce", 1e12)
    for lane in await store.claim("me", 10, 30, room={A: 5}):
        (first, *_) = await store.peek(lane)
        await store.bury(lane, first.position, 500, "status 500")
        await store.release(lane)
    (lane,) = await store.claim("me", 10, 30)
    await store.retry(lane, 2, 0, 500, "status 500")
    (lane,) = await store.claim("me", 10, 30)
    await store.ack(lane, 2)
    await store.pause(A, "status 410")
    await store.next_due(without=[B])
    everything = Selection(("evt_CA1_1",), "CA1", A, frozenset(("dead", "done", "pending")), 0, 1e12)
    await store.records(everything, 10, before=100)
    await store.replay(everything)
    await store.purge(body_age_s=0, call_age_s=1e6)
    await store.erase("CA1")
    await store.purge(body_age_s=0, call_age_s=-1)
    assert await store.records(Selection(), 10) == []
    await store.stats()
    await store.close()


async def test_a_full_disk_is_told_apart(stores: Stores, postgres_server: PostgresServer) -> None:
    await postgres_server.query(
        """create function whisper_bridge.full() returns trigger language plpgsql as
           $$ begin raise exception using errcode = '53100'; end $$;"""
    )
    await postgres_server.query(
        "create trigger full_disk before insert on whisper_bridge.events execute function whisper_bridge.full()"
    )
    lease = await stores[0].own_call("CA1", "me", b"")
    with pytest.raises(OutboxFull, match="make room"):
        await stores[0].publish(lease, [event(1)], {"inbound": 1})
    assert dict((await stores[0].own_call("CA1", "me", b"")).watermarks) == {}


async def test_an_endpoint_that_is_forgotten_at_that_moment_is_there_for_a_new_lane(
    postgres_url: str,
) -> None:
    """A lane whose endpoint is gone would never be claimed."""
    now = 0.0
    one, two = Postgres(postgres_url, lambda: now), Postgres(postgres_url, lambda: now)
    await one.open()
    await two.open()
    for n in range(30):
        old = await one.own_call(f"old{n}", "me", b"")
        await one.publish(old, [event(1, old.call_sid)], {})
        assert len(await deliver(one)) == 1
        now += 100
        new = await one.own_call(f"new{n}", "me", b"")
        await asyncio.gather(
            two.purge(body_age_s=50, call_age_s=50), one.publish(new, [event(1, new.call_sid)], {})
        )
        assert await deliver(one) == [(new.call_sid, 1)]
    await one.close()
    await two.close()


class Busy:
    """Publishers, workers and operators, all over the same few calls and endpoints."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.chance = random.Random(7)
        self.calls: list[str] = []
        self.erased: list[str] = []
        self.accepted: dict[str, list[int]] = {}
        self.ended = False

    async def publish(self, store: Postgres) -> None:
        """One call after the other, each until it has all its events or is erased or removed."""
        while not self.ended:
            call = f"CA{len(self.calls)}"
            self.calls.append(call)
            lease = await store.own_call(call, "me", b"")
            with contextlib.suppress(Fenced):
                for n in range(1, 16):
                    ends = [A, B] if n % 2 else [B, A]
                    await store.publish(lease, [event(n, call, endpoint) for endpoint in ends], {})

    async def work(self, store: Postgres) -> None:
        while not self.ended:
            await self.look(store)

    async def look(self, store: Postgres) -> None:
        for lane in await store.claim("me", 5, 30, each=3):
            with contextlib.suppress(Fenced):
                await self.deliver(store, lane)

    async def deliver(self, store: Postgres, lane: LaneLease) -> None:
        for stored in await store.peek(lane):
            decided = 1.0 if self.ended else self.chance.random()
            if decided < 0.2:
                await store.bury(lane, stored.position, 500, "status 500")
            elif decided < 0.3:
                await store.retry(lane, stored.position, 0, 500, "status 500")
                return
            else:
                await store.ack(lane, stored.position)
                self.accepted.setdefault(lane.lane, []).append(stored.sequence)
        await store.release(lane)

    async def operate(self, store: Postgres) -> None:
        settled: frozenset[State] = frozenset(("dead", "done"))
        for n in range(70):
            call, what = self.chance.choice(self.calls[-12:]), n % 7
            if what == 0:
                await store.replay(Selection())
            elif what == 1:
                await store.replay(Selection(call_sid=call, states=settled))
            elif what == 2:
                await store.replay(Selection(endpoint=A))
            elif what == 3:
                await store.records(Selection(), 20)
            elif what == 4:
                await store.purge(body_age_s=0.1, call_age_s=0.2, limit=50)
            elif what == 5:
                await store.pause(B, "status 410")
            else:
                await store.erase(call)
                self.erased.append(call)


async def test_everything_at_once_neither_locks_up_nor_loses_anything(stores: Stores) -> None:
    busy = Busy(stores)
    # An OutboxDown out of here is a deadlock, or a lock that was held for too long.
    async with asyncio.timeout(60), asyncio.TaskGroup() as others:
        for store in stores * 2:
            others.create_task(busy.work(store))
            others.create_task(busy.publish(store))
        await asyncio.sleep(0)
        async with asyncio.TaskGroup() as operators:
            for store in stores:
                operators.create_task(busy.operate(store))
        busy.ended = True
    await stores[0].replay(Selection())
    async with asyncio.timeout(20):
        while (await stores[0].stats()).pending:
            await busy.look(stores[0])
    for lane, sequences in busy.accepted.items():
        assert lane.endswith(REPLAY) or sequences == sorted(set(sequences)), "in order, and once"
    rest = await stores[1].records(Selection(), 10_000)
    assert {record.state for record in rest} <= {"done", "erased", "dead"}
    assert not [record for record in rest if record.kept and record.call_sid in busy.erased]
    assert not [record for record in rest if record.state == "dead" and record.call_sid not in busy.erased]
    assert len(busy.erased) == 20
