"""What workers that are no more left in their files, and what becomes of it: nothing is lost."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.outbox import adoption
from bridge.outbox.attachments import Attachment
from bridge.outbox.file import open_file
from bridge.outbox.lease import REPLAY, Erased
from bridge.outbox.outbox import Line, Outbox, Outgoing, Selection, lane_name
from bridge.outbox.sqlite import Sqlite
from tests.outbox.events import A, B, Clock, event, fill, work_off


@asynccontextmanager
async def opened(
    directory: Path, clock: Clock, *, worker: int = 1, workers: int = 1
) -> AsyncIterator[Sqlite]:
    outbox = Sqlite(directory, clock, worker=worker, workers=workers)
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.suffix != ".lock"}


async def delivered(outbox: Outbox) -> dict[tuple[str, str], list[str]]:
    """What every due lane delivers, in its order."""
    found = {}
    for lane in await outbox.claim("me", 1000, 30):
        found[lane.endpoint, lane.lane] = [stored.event_id for stored in await outbox.peek(lane, 1000)]
        await outbox.release(lane)
    return found


async def bodies(outbox: Outbox) -> set[bytes]:
    found = set()
    for lane in await outbox.claim("me", 1000, 30):
        found |= {stored.body for stored in await outbox.peek(lane, 1000)}
        await outbox.release(lane)
    return found


def named(text: str, *sequences: int, call: str = "CA1") -> list[Outgoing]:
    """Events of the same ids, but other bytes: as if two workers had had the call."""
    return [Outgoing(A, n, f"evt_{call}_{n}", "transcript.final", f"{text} {n}".encode()) for n in sequences]


async def test_the_first_worker_takes_over_what_the_others_left(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, worker=2, workers=3) as second:
        lease = await second.own_call("CA2", "second", b"meta")
        await second.publish(lease, [event(n, A, "CA2") for n in (1, 2, 3, 4)], {"inbound": 8000})
        await work_off(second, "ack", "bury", "bury", "ack")
        await second.replay(Selection(event_ids=("evt_CA2_3",)))
        await second.publish(lease, [event(5, A, "CA2"), event(1, B, "CA2")], {}, ended=True)
        await second.claim("second", 1, 30)
        await second.pause(B, "status 410")
        await second.spend("nonce", clock.now + 60)
        listed = await second.records(Selection(), 100)
    async with opened(tmp_path, clock, worker=3, workers=3) as third:
        await fill(third, event(1, A, "CA3"), call="CA3")
    async with opened(tmp_path, clock) as first:
        await fill(first, event(1))
    assert files(tmp_path) == {"outbox.sqlite3"}
    async with opened(tmp_path, clock) as first:
        assert await delivered(first) == {
            (A, lane_name(A, "CA1")): ["evt_CA1_1"],
            (A, lane_name(A, "CA2")): ["evt_CA2_5"],
            (A, lane_name(A, "CA2") + REPLAY): ["evt_CA2_3"],
            (B, lane_name(B, "CA2")): ["evt_CA2_1"],
            (A, lane_name(A, "CA3")): ["evt_CA3_1"],
        }
        again = await first.records(Selection(call_sid="CA2"), 100)
        for old, new in zip(listed, again, strict=True):
            assert [getattr(old, name) for name in old.__slots__ if name not in ("serial", "due_at")] == [
                getattr(new, name) for name in new.__slots__ if name not in ("serial", "due_at")
            ]
        later = await first.own_call("CA2", "first", b"")
        assert (later.epoch, later.next_sequence, later.ended) == (2, 6, True)
        assert dict(later.watermarks) == {"inbound": 8000}
        assert not await first.spend("nonce", clock.now + 60)
        assert await first.replay(Selection(states=frozenset({"dead"}))) == 1


async def test_calls_that_nobody_is_at_work_on_and_attached_numbers_are_taken_along(
    tmp_path: Path, clock: Clock
) -> None:
    ours, theirs, both = (
        Attachment(f"PN{n}", f"+1555010{n}", b"before", "https://then.example/", "GET") for n in range(3)
    )
    async with opened(tmp_path, clock, worker=2, workers=2) as second:
        await second.own_call("CA1", "second", b"about", node="n2")
        await second.inherit("CA1", "heir", b"", node="n3", silent_s=10)
        await second.let_go(await second.own_call("CA2", "second", b"", node="n2"))
        await second.attach(theirs)
        await second.attach(replace(both, before=b"theirs"))
    async with opened(tmp_path, clock, worker=3, workers=3) as third:
        await third.publish(await third.own_call("CA3", "third", b"", node="n4"), [], {}, ended=True)
    async with opened(tmp_path, clock, workers=3) as first:
        await first.attach(ours)
        await first.attach(both)
    async with opened(tmp_path, clock) as first:
        assert [
            (call.call_sid, call.owner, call.heir, call.meta) for call in await first.orphans(10, 50)
        ] == [
            ("CA1", "second", "heir", b"about"),
            ("CA2", "", "", b""),
        ]
        assert await first.beat("n2") == {"CA1": "heir"}
        assert await first.attached() == [ours, theirs, both]


async def test_what_is_adopted_is_told(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, worker=2, workers=2) as second:
        await fill(second, event(1), event(2))
    with capture_logs() as lines:
        async with opened(tmp_path, clock):
            pass
    assert lines == [
        {
            "event": "outbox_adopted",
            "log_level": "info",
            "module": "bridge.outbox.adoption",
            "file": "outbox.2.sqlite3",
            "events": 2,
        }
    ]


async def test_files_of_workers_that_there_are_and_of_somebody_else_are_left_alone(
    tmp_path: Path, clock: Clock
) -> None:
    others = {
        "outbox.02.sqlite3",
        "outbox.x.sqlite3",
        "outbox.3.sqlite3.bak",
        "outbox.0.sqlite3",
        "outbox.1.sqlite3",
    }
    for name in others:
        (tmp_path / name).write_text("mine")
    for worker in (2, 3):
        async with opened(tmp_path, clock, worker=worker, workers=3) as outbox:
            await fill(outbox, event(1, A, f"CA{worker}"), call=f"CA{worker}")
    async with opened(tmp_path, clock, worker=2, workers=2):
        assert "outbox.3.sqlite3" in files(tmp_path), "only the first worker adopts"
    async with opened(tmp_path, clock, workers=2) as first:
        assert files(tmp_path) - others >= {"outbox.2.sqlite3"}
        assert "outbox.3.sqlite3" not in files(tmp_path)
        assert (await first.stats()).pending == 1
    assert files(tmp_path) >= others


async def test_a_file_that_is_in_use_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    async with opened(tmp_path, clock, worker=2, workers=2) as second:
        await fill(second, event(1))
        with capture_logs() as lines:
            async with opened(tmp_path, clock) as first:
                assert (await first.stats()).pending == 0
                await fill(second, event(2))
        assert [line["event"] for line in lines] == ["outbox_not_adopted"]
        assert "in use by another whisper-bridge" in lines[0]["error"]
    async with opened(tmp_path, clock) as first:
        assert (await first.stats()).pending == 2


async def test_a_damaged_file_is_left_alone_and_stops_nobody(tmp_path: Path, clock: Clock) -> None:
    stray = tmp_path / "outbox.2.sqlite3"
    stray.write_bytes(b"not a database, but long enough to be looked at" * 100)
    before = stray.read_bytes()
    async with opened(tmp_path, clock, worker=3, workers=3) as third:
        await fill(third, event(1))
    with capture_logs() as lines:
        async with opened(tmp_path, clock) as first:
            assert (await first.stats()).pending == 1
    assert [line["event"] for line in lines] == ["outbox_not_adopted", "outbox_adopted"]
    assert "is damaged" in lines[0]["error"]
    assert "\n" not in lines[0]["error"]
    assert stray.read_bytes() == before


async def test_a_file_of_the_first_schema_is_adopted(tmp_path: Path, clock: Clock) -> None:
    old = sqlite3.connect(tmp_path / "outbox.2.sqlite3", isolation_level=None)
    old.executescript(Path(__file__).with_name("sqlite_1.sql").read_text() + "pragma user_version = 1;")
    old.execute("insert into endpoints values (?, null)", (A,))
    old.execute(
        "insert into lanes values (?, ?, 'CA1', 1, 2, 0, null, 0, null, 0, 0)", (lane_name(A, "CA1"), A)
    )
    old.execute(
        "insert into events values (?, 1, 'evt', 't', x'61', 'pending', 1.0, null, 0, null, null)",
        (lane_name(A, "CA1"),),
    )
    old.close()
    async with opened(tmp_path, clock) as first:
        assert await bodies(first) == {b"a"}


class KilledError(BaseException):
    """What a kill is to the code that it hits: nothing after it happens."""


@pytest.mark.parametrize("then", ["the same", "goes on", "delivered"])
async def test_killed_before_the_file_is_removed_it_is_adopted_once(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    async with opened(tmp_path, clock, worker=2, workers=2) as second:
        lease = await second.own_call("CA1", "me", b"")
        lines = [Line(n, "inbound", n, n + 1, "yes") for n in (1, 2)]
        await second.publish(lease, [event(1), event(2), event(3)], {}, lines=lines)
        await work_off(second, "bury")
        await fill(second, event(4), event(5), event(1, B))
    file = open_file(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kill)
        with pytest.raises(KilledError):
            adoption.adopt_strays(file.connection, tmp_path, workers=1)
    file.close()
    assert files(tmp_path) == {"outbox.sqlite3", "outbox.2.sqlite3"}
    count = 6
    if then == "goes on":  # worker 2 is back for a while, and takes more
        async with opened(tmp_path, clock, worker=2, workers=2) as second:
            await fill(second, event(6))
        count = 7
    elif then == "delivered":  # by a version that adopts nothing
        async with opened(tmp_path, clock, workers=2) as first:
            await work_off(first)
    async with opened(tmp_path, clock) as first:
        records = await first.records(Selection(), 100)
        assert len({(record.endpoint, record.event_id) for record in records}) == count
        assert await first.transcript("CA1") == lines
        if then != "goes on":
            assert len(records) == count
        pending = {stored for lane in (await delivered(first)).values() for stored in lane}
        assert (
            pending
            == {
                "the same": {"evt_CA1_1", "evt_CA1_4", "evt_CA1_5"},
                "goes on": {"evt_CA1_1", "evt_CA1_4", "evt_CA1_5", "evt_CA1_6"},
                "delivered": set(),
            }[then]
        )
    assert files(tmp_path) == {"outbox.sqlite3"}


def kill(*_: object, **__: object) -> None:
    raise KilledError


async def test_a_failure_in_the_middle_changes_nothing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, clock, worker=2, workers=2) as second:
        await fill(second, event(1))

    def fail(_: sqlite3.Connection) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch, capture_logs() as lines:
        patch.setattr(adoption, "_erase", fail)
        async with opened(tmp_path, clock) as first:
            assert (await first.stats()).pending == 0
            await fill(first, event(1, A, "CA9"), call="CA9")
    assert [line["error"] for line in lines] == ["database or disk is full"]
    async with opened(tmp_path, clock) as first:
        assert (await first.stats()).pending == 2


ROUNDS: Sequence[tuple[int, int, int, int]] = (
    (2, 0, 4, 0),
    (4, 0, 2, 0),
    (4, 3, 3, 1),
    (2, 2, 3, 3),
    (3, 3, 3, 0),
)
"""How many events are in our lane and how many of them are dead, and the same of theirs."""


@pytest.mark.parametrize("counts", ROUNDS)
async def test_a_call_that_is_in_both_files_loses_nothing_and_goes_on(
    tmp_path: Path, clock: Clock, counts: tuple[int, int, int, int]
) -> None:
    ours, theirs = range(1, counts[0] + 1), range(1, counts[2] + 1)
    our_dead, their_dead = counts[1], counts[3]

    async def write(worker: int, text: str, sequences: Sequence[int], dead: int) -> None:
        async with opened(tmp_path, clock, worker=worker, workers=2) as outbox:
            lines = [Line(n, "inbound", n, n + 1, f"{text} {n}") for n in sequences]
            await outbox.publish(
                await outbox.own_call("CA1", "me", b""), named(text, *sequences), {}, lines=lines
            )
            (lane,) = await outbox.claim("me", 1, 30)
            for position in range(1, dead + 1):
                await outbox.bury(lane, position, 500, "status 500")

    await write(1, "ours", ours, our_dead)
    await write(2, "theirs", theirs, their_dead)
    async with opened(tmp_path, clock) as first:
        assert await bodies(first) == {
            *(f"ours {n}".encode() for n in ours[our_dead:]),
            *(f"theirs {n}".encode() for n in theirs[their_dead:]),
        }
        lines = await first.transcript("CA1")
        assert [line.text for line in lines] == [
            *(f"ours {n}" for n in ours),
            *(f"theirs {n}" for n in theirs),
        ]
        assert [line.number for line in lines][: len(ours)] == list(ours)
        for lane in await first.claim("me", 10, 30):
            sequences = [stored.sequence for stored in await first.peek(lane, 100)]
            assert sequences == sorted(sequences)
            await first.release(lane)
        assert await first.replay(Selection(states=frozenset({"dead"}))) == our_dead + their_dead
        lease = await first.own_call("CA1", "me", b"")
        assert lease.next_sequence == max(*ours, *theirs) + 1
        await first.publish(lease, named("next", lease.next_sequence), {})
        assert f"next {lease.next_sequence}".encode() in await bodies(first)


async def test_a_call_that_was_erased_in_one_file_is_erased_in_both(tmp_path: Path, clock: Clock) -> None:
    leases: list[Any] = []
    for worker, call in ((1, "CA1"), (2, "CA2")):
        async with opened(tmp_path, clock, worker=worker, workers=2) as outbox:
            for sid in ("CA1", "CA2"):
                leases.append(await outbox.own_call(sid, "me", b""))
                text = f"what {worker} heard in {sid}"
                lines = [Line(1, "inbound", 0, 1, text)]
                await outbox.publish(leases[-1], named(text, 1, 2, call=sid), {}, lines=lines)
            await outbox.erase(call)
    async with opened(tmp_path, clock) as first:
        assert await bodies(first) == set()
        assert await first.transcript("CA1") == await first.transcript("CA2") == []
        for name in ("outbox.sqlite3", "outbox.sqlite3-wal"):
            assert b"heard" not in (tmp_path / name).read_bytes()
        for lease in leases:
            with pytest.raises(Erased):
                await first.publish(lease, [], {})
