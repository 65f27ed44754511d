"""The SQLite outbox beyond the interface: reopening, erasing without a trace, blocked backlogs."""

import asyncio
import json
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bridge.outbox import expiry, lanes, operations, owners
from bridge.outbox.lease import Fenced
from bridge.outbox.outbox import Line, OutboxDown, Outgoing, Selection, lane_name
from bridge.outbox.sqlite import Sqlite
from tests.outbox.events import A, B, Clock, event, fill, work_off

T = TypeVar("T")

DAY_S = 86_400.0


@pytest.fixture
async def outbox(tmp_path: Path, clock: Clock) -> AsyncIterator[Sqlite]:
    opened = Sqlite(tmp_path / "outbox", clock)
    await opened.open()
    yield opened
    await opened.close()


async def test_reopened_it_goes_on_at_once_with_leased_and_paused_lanes(tmp_path: Path, clock: Clock) -> None:
    first = Sqlite(tmp_path / "o", clock)
    await first.open()
    lease = await first.own_call("CA1", "me", b"")
    await first.publish(lease, [event(1), event(2), event(1, B)], {"inbound": 7})
    held = {lane.endpoint: lane for lane in await first.claim("me", 10, 30)}
    await first.ack(held[A], 1)
    await first.pause(B, "status 410")
    await first.close()

    second = Sqlite(tmp_path / "o", clock)
    await second.open()
    assert second.wake.is_set()
    again = {lane.endpoint: lane for lane in await second.claim("me", 10, 30)}
    assert (again[A].head, again[B].head) == (2, 1)
    with pytest.raises(Fenced):
        await second.ack(held[A], 2)
    await second.close()


async def test_reopened_a_lane_in_backoff_waits_on_unless_the_clock_was_set_back(
    tmp_path: Path, clock: Clock
) -> None:
    first = Sqlite(tmp_path / "o", clock)
    await first.open()
    await first.publish(await first.own_call("CA1", "me", b""), [event(1)], {})
    (lane,) = await first.claim("me", 1, 30)
    await first.retry(lane, 1, 600, 500, "status 500")
    await first.close()
    for step, due in ((0, 600), (-86_400, 0)):
        clock.now += step
        again = Sqlite(tmp_path / "o", clock)
        await again.open()
        assert await again.next_due() == due
        await again.close()


async def test_no_lane_waits_for_the_time_before_the_clock_was_set_back(outbox: Sqlite, clock: Clock) -> None:
    for n in range(5):
        await fill(outbox, event(1, A, f"CA{n}"), call=f"CA{n}")
    *failed, leased = await outbox.claim("me", 5, 30)
    for lane in failed:
        await outbox.retry(lane, 1, 600, 500, "status 500")
    outbox.wake.clear()
    assert await outbox.purge(body_age_s=DAY_S, call_age_s=DAY_S) is False
    assert not outbox.wake.is_set()
    clock.now -= DAY_S
    assert await outbox.next_due() == DAY_S + 30
    assert await outbox.purge(body_age_s=DAY_S, call_age_s=DAY_S, limit=3) is True
    assert outbox.wake.is_set()
    assert await outbox.next_due() == 0
    assert await outbox.purge(body_age_s=DAY_S, call_age_s=DAY_S, limit=3) is False
    assert len(await outbox.claim("me", 9, 30)) == 4
    assert await outbox.peek(leased), "who is at work on a lane keeps it"
    clock.now += 30
    assert leased.lane in {lane.lane for lane in await outbox.claim("me", 9, 30)}


async def test_a_replay_makes_many_lanes_due_in_several_bites(
    outbox: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "BITE", 3)
    for n in range(7):
        await fill(outbox, event(1, A, f"CA{n}"), event(2, A, f"CA{n}"), event(1, B, f"CA{n}"), call=f"CA{n}")
    for lane in await outbox.claim("me", 99, 30):
        await outbox.retry(lane, 1, 60, 500, "status 500")
    ids = ("evt_CA2_2", "evt_CA6_1")
    selections = (
        (Selection(event_ids=ids), 3, {("CA2", A), ("CA6", A), ("CA6", B)}),
        (Selection(call_sid="CA4"), 3, {("CA4", A), ("CA4", B)}),
        (Selection(endpoint=B, states=frozenset({"pending"})), 7, {(f"CA{n}", B) for n in range(7)}),
        (Selection(), 21, {(f"CA{n}", endpoint) for n in range(7) for endpoint in (A, B)}),
    )
    for selection, count, due in selections:
        assert await outbox.replay(selection) == count
        claimed = await outbox.claim("me", 99, 30)
        assert {(lane.call_sid, lane.endpoint) for lane in claimed} == due
        for lane in claimed:
            await outbox.retry(lane, 1, 60, 500, "status 500")


async def test_a_lease_begins_when_it_is_given_not_when_it_was_asked_for(
    outbox: Sqlite, clock: Clock
) -> None:
    call = await outbox.own_call("CA1", "test", b"")
    other = await outbox.own_call("CA2", "test", b"")
    await outbox.publish(other, [event(1, call="CA2")], {})
    began, go_on = threading.Event(), threading.Event()

    def stall(_: sqlite3.Connection) -> None:
        began.set()
        go_on.wait(10)

    stalled = asyncio.create_task(outbox._writer.run(stall))
    await asyncio.to_thread(began.wait, 10)
    claiming = asyncio.create_task(outbox.claim("a", 1, 15.0))
    storing = asyncio.create_task(outbox.publish(call, [event(1)], {}, deliverer="a", lease_s=15.0))
    await asyncio.sleep(0)
    clock.now += 60
    go_on.set()
    await stalled
    assert len(await claiming) == len(await storing) == 1
    assert await outbox.claim("b", 9, 15.0) == [], "both are leased"
    assert await outbox.next_due() == 15.0


async def test_a_closed_outbox_says_so(tmp_path: Path) -> None:
    outbox = Sqlite(tmp_path / "o")
    with pytest.raises(OutboxDown, match="not open"):
        await outbox.stats()
    await outbox.open()
    await outbox.close()
    await outbox.close()
    with pytest.raises(OutboxDown, match="not open"):
        await outbox.own_call("CA1", "me", b"")


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir())


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_erased_leaves_no_trace_in_the_files(
    tmp_path: Path, outbox: Sqlite, clock: Clock, seed: int
) -> None:
    """Also not in what SQLite leaves on its pages when rows of other calls come and go beside it."""
    chance = random.Random(seed)
    calls = [f"CA{n}" for n in range(20)]
    leases = {call: await outbox.own_call(call, "me", f"meta of {call}/".encode()) for call in calls}
    numbers = dict.fromkeys(calls, 0)
    for round_ in range(400):
        call = chance.choice(calls)
        numbers[call] += 1
        text = f"what {call}/ said, " * chance.randint(2, 60)
        body = json.dumps({"text": text}).encode()
        outgoing = Outgoing(A, numbers[call], f"evt_{call}_{round_}", "transcript.final", body)
        line = Line(numbers[call], "inbound", 0, 1, f"line of {call}/" * chance.randint(1, 20))
        await outbox.publish(leases[call], [outgoing], {}, lines=[line])
        if chance.random() < 0.2:
            await work_off(outbox, *chance.choices(["ack", "bury"], k=20))
            clock.now += 10
            await outbox.purge(body_age_s=20, call_age_s=DAY_S, limit=chance.randint(1, 40))
    erased, kept = calls[:5], calls[5:]
    for call in erased:
        await outbox.erase(call)
        await outbox.own_call(call, "me", f"meta of {call}/".encode())  # by who does not know of it
    on_disk = content(tmp_path / "outbox")
    for call in erased:
        for text in (f"what {call}/ said", f"line of {call}/", f"meta of {call}/"):
            assert on_disk.count(text.encode()) == 0
    assert any(f"what {call}/ said".encode() in on_disk for call in kept), "this looked at the right files"


async def test_reopened_it_knows_of_no_node_that_lives(tmp_path: Path, clock: Clock) -> None:
    first = Sqlite(tmp_path / "o", clock)
    await first.open()
    await first.own_call("CA1", "me", b"about", node="n1")
    assert await first.orphans(10, 50) == []
    await first.close()
    second = Sqlite(tmp_path / "o", clock)
    await second.open()
    (orphan,) = await second.orphans(10, 50)
    assert (orphan.call_sid, orphan.owner, orphan.meta) == ("CA1", "me", b"about")
    await second.own_call("CA1", "me", b"", node="n2", only_from=orphan.owner)
    assert await second.orphans(10, 50) == []
    await second.close()


async def test_an_unknown_call_does_not_rewrite_the_file(outbox: Sqlite) -> None:
    statements: list[str] = []
    await outbox._writer.run(lambda db: db.set_trace_callback(statements.append))
    assert await outbox.erase("CA9") == 0
    await fill(outbox, event(1))
    assert "vacuum" not in statements
    assert await outbox.erase("CA1") == 1
    assert "vacuum" in statements


async def test_a_listing_goes_through_much_in_several_looks(
    outbox: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "SCAN", 7)
    for n in range(1, 11):
        await fill(outbox, event(n), event(n, B))
    await work_off(outbox)
    await fill(outbox, event(1, A, "CA2"), call="CA2")
    done = Selection(states=frozenset({"done"}), endpoint=B)
    assert [record.sequence for record in await outbox.records(done, 100)] == list(range(10, 0, -1))
    first = await outbox.records(done, 3)
    assert [record.sequence for record in first] == [10, 9, 8]
    rest = await outbox.records(done, 4, before=first[-1].serial)
    assert [record.sequence for record in rest] == [7, 6, 5, 4]
    assert len(await outbox.records(Selection(), 100)) == 21
    assert await outbox.replay(done) == 10
    (lane,) = [lane for lane in await outbox.claim("me", 10, 30) if lane.replay]
    assert [stored.sequence for stored in await outbox.peek(lane)] == list(range(1, 11))


async def plan(outbox: Sqlite, query: str, values: dict[str, Any] | None = None) -> str:
    def explain(db: sqlite3.Connection) -> str:
        rows = db.execute(f"explain query plan {query}", values or {})
        return " / ".join(row[3] for row in rows)

    return await outbox._writer.run(explain)


@pytest.mark.parametrize(
    ("selection", "index"),
    [
        (Selection(states=frozenset({"dead"}), endpoint=A), "events_dead (serial>? AND serial<?)"),
        (Selection(states=frozenset({"pending"}), since=0.0), "events_pending (serial>? AND serial<?)"),
        (Selection(event_ids=("evt",), states=frozenset({"done"})), "events_by_id (event_id=?)"),
        (Selection(call_sid="CA1"), "lanes_of_call (call_sid=?)"),
    ],
)
async def test_what_an_operator_asks_for_is_found_by_an_index(
    outbox: Sqlite, selection: Selection, index: str
) -> None:
    states = selection.states or operations.ANY
    query, values = await outbox._writer.run(lambda db: operations._serials(db, selection, states, 0, 9))
    steps = await plan(outbox, f"{query} order by serial limit 5", values)
    assert index in steps
    assert "SCAN events /" not in f"{steps} /"


async def run_traced(outbox: Sqlite, operation: Callable[[sqlite3.Connection], object]) -> list[str]:
    def traced(db: sqlite3.Connection) -> list[str]:
        statements: list[str] = []
        db.set_trace_callback(statements.append)
        operation(db)
        db.set_trace_callback(None)
        return statements

    return await outbox._writer.run(traced)


@pytest.mark.parametrize(
    ("operation", "indexes"),
    [
        (
            partial(lanes.claim, owner="me", limit=9, lease_s=30, each=9, room={}, now=2e9),
            ["lanes_due (endpoint=? AND priority=?)", "lanes_due (endpoint=? AND priority=? AND due_at<?)"],
        ),
        (partial(lanes.next_due, without=(), now=0), ["lanes_due (endpoint=? AND priority=?)"]),
        (partial(lanes.mend, limit=9, now=0), ["lanes_due (endpoint=? AND priority=? AND due_at>?)"]),
        (partial(lanes.stats, now=0), ["COVERING INDEX lanes_waiting", "events_pending", "events_dead"]),
        (
            partial(operations.hasten, selection=Selection(), after="", end=9, now=0),
            ["COVERING INDEX lanes_waiting (lane>?)", "events_1 (lane=? AND position>?)"],
        ),
    ],
)
async def test_lanes_that_wait_are_found_by_an_index(
    outbox: Sqlite, operation: Callable[[sqlite3.Connection], object], indexes: list[str]
) -> None:
    await fill(outbox, event(1))
    looks = [
        await plan(outbox, statement)
        for statement in await run_traced(outbox, operation)
        if "head" in statement or "from events" in statement
    ]
    for index, look in zip(indexes, looks[: len(indexes)], strict=True):
        assert index in look
        assert "SCAN lanes /" not in f"{look} /"


async def test_what_is_past_its_time_is_found_by_an_index(outbox: Sqlite) -> None:
    purge = partial(expiry.purge, body_age_s=0, call_age_s=0, limit=9, now=0)
    statements = await run_traced(outbox, purge)
    looks = [statement for statement in statements if "_at <=" in statement]
    indexes = ("events_with_body", "calls_spoken", "calls_old", "calls_open")
    for look, index in zip(looks, indexes, strict=True):
        assert index in await plan(outbox, look)


@pytest.mark.parametrize(
    "operation",
    [
        partial(owners.beat, node="n1", now=0),
        partial(owners.orphans, silent_s=10, limit=9, now=0),
        partial(owners.inherit, call_sid="CA1", heir="me", meta=b"", node="n1", silent_s=10, now=0),
        partial(owners.known, call_sid="CA1", now=0),
    ],
)
async def test_who_looks_for_open_calls_reads_no_others(
    outbox: Sqlite, operation: Callable[[sqlite3.Connection], object]
) -> None:
    plans = [await plan(outbox, statement) for statement in await run_traced(outbox, operation)]
    looks = [look for path in plans for look in path.split(" / ") if " calls" in look]
    assert looks
    for look in looks:
        assert "INDEX calls_open" in look or "PRIMARY KEY (call_sid=?)" in look


@pytest.fixture
async def blocked(outbox: Sqlite, clock: Clock) -> Sqlite:
    """100,000 events of 2,000 calls wait for an endpoint that is down."""
    rows = [(lane_name(A, f"CA{n}"), A, f"CA{n}", 51, 3, clock.now + 600) for n in range(2000)]
    events = [
        (lane[0], n, n, f"evt_{lane[2]}_{n}", "t", b"x" * 100, bytes(32), clock.now)
        for lane in rows
        for n in range(1, 51)
    ]
    await outbox._writer.run(
        lambda db: [
            db.execute("insert into endpoints values (?, null)", (A,)),
            db.executemany(
                "insert into lanes (lane, endpoint, call_sid, next, attempts, due_at) values (?, ?, ?, ?, ?, ?)",
                rows,
            ),
            db.executemany(
                """insert into events (lane, position, sequence, event_id, type, body, sha256, created_at)
                   values (?, ?, ?, ?, ?, ?, ?, ?)""",
                events,
            ),
        ]
    )
    return outbox


async def test_100_000_blocked_events_do_not_slow_a_claim(blocked: Sqlite) -> None:
    for n in range(20):
        call = f"CAnew{n}"
        await fill(blocked, event(1, A, call), call=call)
    idle, claimed = [], []
    for _ in range(20):
        began = time.perf_counter()
        (lane,) = await blocked.claim("me", 1, 30)
        claimed.append(time.perf_counter() - began)
        assert lane.call_sid.startswith("CAnew")
    for _ in range(20):
        began = time.perf_counter()
        assert await blocked.claim("me", 64, 30) == []
        assert await blocked.next_due() is not None
        idle.append(time.perf_counter() - began)
    assert (await blocked.stats()).pending == 100_020
    print(f"claim {min(claimed) * 1e3:.2f} ms, idle look {min(idle) * 1e3:.2f} ms")  # noqa: T201 - a figure for -s


async def test_operations_on_100_000_blocked_events(blocked: Sqlite) -> None:
    took = {}

    async def timed(name: str, work: Coroutine[Any, Any, T]) -> T:
        began = time.perf_counter()
        result = await work
        took[name] = (time.perf_counter() - began) * 1e3
        return result

    page = await timed("list pending", blocked.records(Selection(states=frozenset({"pending"})), 100))
    assert [record.event_id for record in page[:2]] == ["evt_CA1999_50", "evt_CA1999_49"]
    assert await timed("list dead", blocked.records(Selection(states=frozenset({"dead"})), 100)) == []
    assert len(await timed("list a call", blocked.records(Selection(call_sid="CA7"), 100))) == 50
    assert len(await timed("list all", blocked.records(Selection(), 100))) == 100
    assert await timed("purge", blocked.purge(body_age_s=0, call_age_s=0)) is False
    assert (await timed("stats", blocked.stats())).pending == 100_000
    assert await timed("replay", blocked.replay(Selection())) == 100_000
    assert len(await timed("claim 64", blocked.claim("me", 64, 30))) == 64
    print(", ".join(f"{name} {ms:.1f} ms" for name, ms in took.items()))  # noqa: T201 - figures for -s


async def test_what_is_not_kept_is_not_in_the_log_either(
    tmp_path: Path, outbox: Sqlite, clock: Clock
) -> None:
    lease = await outbox.own_call("CA1", "me", b"from +15550100")
    body = b'{"text": "not to be kept"}'
    line = Line(1, "inbound", 0, 1, "not to be kept")
    outgoing = Outgoing(A, 1, "evt_1", "transcript.final", body)
    await outbox.publish(lease, [outgoing], {}, lines=[line], ended=True)
    (lane,) = await outbox.claim("me", 1, 30)
    await outbox.ack(lane, 1)
    await outbox.release(lane)
    assert b"not to be kept" in content(tmp_path / "outbox"), "this looks at the right files"
    clock.now += 1
    while await outbox.purge(body_age_s=0, call_age_s=DAY_S):
        pass
    for text in (b"not to be kept", b"+15550100"):
        assert text not in content(tmp_path / "outbox")
