"""Whatever is done to an outbox, in whatever order, by two workers, it does what a small model does.

The state machine is the same for every store. An `Engine` brings the store, and knows how its workers
die; the model knows the rules.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge.outbox.lease import REPLAY, CallLease, Erased, Fenced, LaneLease
from bridge.outbox.outbox import (
    Line,
    Outbox,
    OutboxDown,
    Outgoing,
    Selection,
    State,
    Stats,
    endpoint_tag,
    lane_name,
)
from bridge.outbox.owners import PAUSE_S
from bridge.outbox.ownership import Known

T = TypeVar("T")

A, B = "https://a.example/hook", "https://b.example/hook"
LEASE_S = 30.0
SILENT_S = 10.0
BACKOFF_S = 40.0
BEGAN = 1_787_392_800.0
ALL = Selection()


Start = Literal["afresh", "shared", "unnoticed"]
"""Of a process: the only one of the store, so that its start ends leases, beats and pauses; one of several, so that
it ends pauses; one that asks another process, so that it ends nothing."""


class Engine(Protocol):
    """A store, and the processes that use it."""

    start: Start
    """What a `restart` is to the store."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something of an outbox in the loop that the outbox lives in."""

    def wipe(self, clock: Callable[[], float]) -> None:
        """Empty the store, and let both workers open it; its time is `clock`."""

    def outbox(self, worker: str) -> Outbox:
        """The open outbox of worker "a" or "b"."""

    def restart(self, worker: str, *, crash: bool) -> None:
        """End that worker's process, with a `close` or without, and start it again with `open`."""

    def close(self) -> None:
        """Let go of everything."""


def line(number: int) -> Line:
    return Line(number, "inbound", number * 1000, number * 1000 + 500, f"line {number}")


@dataclass(eq=False)
class Event:
    endpoint: str
    call_sid: str
    sequence: int
    created_at: float
    lane: "Lane"
    position: int
    state: State = "pending"
    kept: bool = True
    delivered_at: float | None = None
    tries: int = 0
    last: tuple[int | None, str | None] = (None, None)

    @property
    def event_id(self) -> str:
        return f"evt_{self.call_sid}_{self.sequence}"

    @property
    def body(self) -> bytes:
        return f'{{"call":"{self.call_sid}","to":"{self.endpoint}","n":{self.sequence}}}'.encode()

    def outgoing(self) -> Outgoing:
        return Outgoing(self.endpoint, self.sequence, self.event_id, "transcript.final", self.body)

    def is_selected(self, selection: Selection) -> bool:
        return (
            (not selection.event_ids or self.event_id in selection.event_ids)
            and selection.call_sid in ("", self.call_sid)
            and selection.endpoint in ("", self.endpoint, endpoint_tag(self.endpoint))
            and (not selection.states or self.state in selection.states)
            and (selection.since is None or self.created_at >= selection.since)
            and (selection.until is None or self.created_at < selection.until)
        )

    def shown(self) -> dict[str, Any]:
        """What a record shows of it, but its serial."""
        head = self.state == "pending" and self.position == self.lane.head
        return {
            "event_id": self.event_id,
            "endpoint": self.endpoint,
            "call_sid": self.call_sid,
            "sequence": self.sequence,
            "type": "transcript.final",
            "state": self.state,
            "replay": self.lane.name.endswith(REPLAY),
            "kept": self.kept,
            "sha256": sha256(self.body).hexdigest(),
            "created_at": self.created_at,
            "delivered_at": self.delivered_at,
            "tries": self.tries,
            "last_status": self.last[0],
            "last_error": self.last[1],
            "due_at": self.lane.due_at if head else None,
        }


@dataclass(eq=False)
class Lane:
    endpoint: str
    call_sid: str
    name: str
    due_at: float
    head: int = 1
    next: int = 1
    attempts: int = 0
    first_failure: float | None = None
    lease: LaneLease | None = None
    holder: str = ""
    """Of the lease."""
    waiting: list[Event] = field(default_factory=list)
    """From the head on."""

    @property
    def rank(self) -> tuple[int, float]:
        """Who goes first: live lanes, those whose head has failed before, replays; then the longest due."""
        return 2 if self.name.endswith(REPLAY) else int(self.attempts > 0), self.due_at

    def add(self, event: Event) -> None:
        event.lane, event.position, event.state = self, self.next, "pending"
        self.next += 1
        self.waiting.append(event)

    def settle(self, state: State) -> Event:
        event = self.waiting.pop(0)
        event.state, event.tries = state, event.tries + 1
        self.head, self.attempts = self.head + 1, 0
        return event


@dataclass(eq=False)
class Call:
    created_at: float
    owner: str = ""
    node: str = ""
    heir: str = ""
    meta: bytes = b""
    epoch: int = 0
    watermark: int = 0
    lines: set[int] = field(default_factory=set)
    seen_at: float = 0.0
    ended: bool = False
    erased: bool = False
    leases: list[CallLease] = field(default_factory=list)


class Model:
    """What an outbox is to hold; its methods are those of the outbox, and say what is to be answered."""

    def __init__(self) -> None:
        self.now = BEGAN
        self.calls: dict[str, Call] = {}
        self.nodes: dict[str, float] = {}
        """When each was heard."""
        self.lanes: dict[str, Lane] = {}
        self.events: list[Event] = []
        self.paused: set[str] = set()
        self.late: list[LaneLease] = []
        """Leases that somebody else has taken over, or that were voided."""

    def lane(self, endpoint: str, call_sid: str, suffix: str = "") -> Lane:
        name = lane_name(endpoint, call_sid) + suffix
        return self.lanes.setdefault(name, Lane(endpoint, call_sid, name, self.now))

    def waiting(self) -> list[Lane]:
        return [lane for lane in self.lanes.values() if lane.waiting]

    def claimable(self) -> list[Lane]:
        waiting = (lane for lane in self.waiting() if lane.endpoint not in self.paused)
        return sorted(waiting, key=lambda lane: lane.rank)

    def take(self, call_sid: str, owner: str, meta: bytes, node: str) -> Call:
        call = self.calls.setdefault(call_sid, Call(self.now))
        call.owner, call.node, call.epoch, call.seen_at = owner, node, call.epoch + 1, self.now
        call.heir = ""
        call.meta = call.meta if call.erased else call.meta or meta
        if node and node not in self.nodes:
            self.beat(node)
        return call

    def beat(self, node: str) -> dict[str, str]:
        if max(self.nodes.values(), default=0) <= self.now - PAUSE_S:
            self.nodes = dict.fromkeys(self.nodes, self.now)
        self.nodes[node] = self.now
        return {sid: call.heir for sid, call in self.calls.items() if call.node == node and not call.ended}

    def silence(self, node: str) -> float:
        return max(self.nodes.values()) - self.nodes[node] if node in self.nodes else math.inf

    def known(self, call_sid: str) -> Known | None:
        call = self.calls.get(call_sid)
        if call is None:
            return None
        return Known(
            call_sid,
            call.owner,
            call.node,
            self.silence(call.node),
            call.heir,
            call.ended,
            call.erased,
            call.meta,
        )

    def orphans(self) -> list[Known | None]:
        open_calls = [(call.created_at, sid) for sid, call in self.calls.items() if not call.ended]
        return [
            self.known(sid) for _, sid in sorted(open_calls) if self.silence(self.calls[sid].node) >= SILENT_S
        ]

    def next_sequence(self, call_sid: str) -> int:
        """One past the highest that any endpoint of the call has."""
        names = (lane_name(endpoint, call_sid) for endpoint in (A, B))
        return max((self.lanes[name].next for name in names if name in self.lanes), default=1)

    def publish(self, call_sid: str, events: Iterable[Outgoing]) -> None:
        for outgoing in events:
            lane = self.lane(outgoing.endpoint, call_sid)
            if outgoing.sequence < lane.next:
                continue
            if not lane.waiting and lane.lease is None:
                lane.due_at = min(lane.due_at, self.now)
            event = Event(outgoing.endpoint, call_sid, outgoing.sequence, self.now, lane, 0)
            lane.add(event)
            self.events.append(event)

    def given(self, call_sid: str, events: Iterable[Outgoing]) -> list[Lane]:
        """Which lanes the deliverer of these events gets."""
        firsts: dict[str, int] = {}
        for event in events:
            firsts.setdefault(lane_name(event.endpoint, call_sid), event.sequence)
        return [
            lane
            for lane in self.claimable()
            if lane.due_at <= self.now and firsts.get(lane.name) == lane.head
        ]

    def due(self, limit: int, each: int, room: dict[str, int]) -> list[Lane]:
        """Which lanes a claim gets: of those of the same rank, others will do as well."""
        left = {A: room.get(A, each), B: room.get(B, each)}
        lanes = []
        for lane in self.claimable():
            if lane.due_at <= self.now and left[lane.endpoint] > 0:
                left[lane.endpoint] -= 1
                lanes.append(lane)
        return lanes[:limit]

    def claim(self, lease: LaneLease, holder: str) -> None:
        lane = self.lanes[lease.lane]
        self.void(lane)
        lane.lease, lane.holder, lane.due_at = lease, holder, self.now + LEASE_S

    def void(self, lane: Lane) -> None:
        if lane.lease is not None:
            self.late.append(lane.lease)
        lane.lease = None

    def hasten(self, lane: Lane) -> None:
        self.paused.discard(lane.endpoint)
        if lane.lease is None:
            lane.due_at, lane.attempts, lane.first_failure = self.now, 0, None

    def replay(self, selection: Selection) -> int:
        selected = [event for event in self.events if event.is_selected(selection)]
        for event in [event for event in selected if event.state == "pending"]:
            self.hasten(event.lane)
        settled = ("dead", "done") if "done" in selection.states else ("dead",)
        moved = [event for event in selected if event.state in settled and event.kept]
        pending = sum(event.state == "pending" for event in selected)
        for event in moved:
            lane = self.lane(event.endpoint, event.call_sid, REPLAY)
            lane.add(event)
            event.delivered_at = None
            self.hasten(lane)
        self.paused -= {
            endpoint for endpoint in (A, B) if selection.endpoint in (endpoint, endpoint_tag(endpoint))
        }
        return pending + len(moved)

    def erase(self, call_sid: str) -> int:
        if call_sid not in self.calls:
            return 0
        call = self.calls[call_sid]
        call.epoch, call.ended, call.erased, call.meta = call.epoch + 1, True, True, b""
        call.lines.clear()
        for lane in self.lanes.values():
            if lane.call_sid == call_sid:
                self.void(lane)
                lane.head, lane.attempts, lane.first_failure, lane.waiting = lane.next, 0, None, []
        events = [event for event in self.events if event.call_sid == call_sid]
        count = sum(event.kept for event in events)
        for event in events:
            event.kept = False
            event.state = "erased" if event.state == "pending" else event.state
        return count

    def purge(self, body_age_s: float, call_age_s: float) -> None:
        for event in self.events:
            if event.state == "done" and event.delivered_at is not None:
                event.kept &= event.delivered_at > self.now - body_age_s
        for call in self.calls.values():
            if call.ended and call.seen_at <= self.now - body_age_s:
                call.lines.clear()
                call.meta = b""
        busy = {lane.call_sid for lane in self.waiting()}
        old = {
            sid
            for sid, call in self.calls.items()
            if sid not in busy and call.created_at <= self.now - call_age_s
        }
        gone = {lane.endpoint for lane in self.lanes.values() if lane.call_sid in old}
        self.calls = {sid: call for sid, call in self.calls.items() if sid not in old}
        self.lanes = {name: lane for name, lane in self.lanes.items() if lane.call_sid not in old}
        self.events = [event for event in self.events if event.call_sid not in old]
        self.late = [lease for lease in self.late if lease.call_sid not in old]
        self.paused -= gone - {lane.endpoint for lane in self.lanes.values()}

    def start(self, start: Start) -> None:
        """A process started."""
        if start == "afresh":
            self.nodes.clear()
            self.free(self.lanes.values())
        if start != "unnoticed":
            self.paused.clear()

    def died(self, node: str) -> None:
        self.nodes.pop(node, None)
        self.free(lane for lane in self.lanes.values() if lane.holder == node)

    def free(self, lanes: Iterable[Lane]) -> None:
        """Void leases, so that the lanes are due."""
        for lane in lanes:
            if lane.lease is not None:
                lane.due_at = self.now
            self.void(lane)

    def stats(self) -> Stats:
        waiting = self.waiting()
        oldest = min((event.created_at for lane in waiting for event in lane.waiting), default=self.now)
        return Stats(
            pending=sum(len(lane.waiting) for lane in waiting),
            oldest_age_s=self.now - oldest,
            lanes_in_backoff=sum(lane.attempts > 0 for lane in waiting),
            dead=sum(event.state == "dead" for event in self.events),
            paused=len(self.paused),
        )

    def next_due(self, without: Iterable[str] = ()) -> float | None:
        waits = [lane.due_at - self.now for lane in self.claimable() if lane.endpoint not in without]
        return max(0.0, min(waits)) if waits else None


CALLS = ("CA1", "CA2", "CA3")
NODES = ("n1", "n2", "n3")
WORKERS = st.sampled_from(["a", "b"])
ENDPOINTS = st.sampled_from([A, B])
SETTLED = st.sampled_from(["ack", "bury"])
BACK = st.sampled_from(["retry", "release"])
STATES: st.SearchStrategy[frozenset[State]] = st.frozensets(
    st.sampled_from(["done", "dead", "pending", "erased"]), max_size=2
)
IDS = st.builds("evt_{}_{}".format, st.sampled_from(CALLS), st.integers(1, 4))
SELECTIONS = st.builds(
    Selection,
    event_ids=st.just(()) | st.lists(IDS, min_size=1, max_size=4).map(tuple),
    call_sid=st.sampled_from(["", "", *CALLS]),
    endpoint=st.sampled_from(["", "", A, endpoint_tag(B), "https://c.example/"]),
    states=STATES,
    since=st.sampled_from([None, None, BEGAN, BEGAN + 1]),
    until=st.sampled_from([None, None, BEGAN + 1, BEGAN + 60]),
)


class Machine(RuleBasedStateMachine):
    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self.engine = engine
        self.do = engine.run

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        self.engine.wipe(lambda: self.model.now)
        for worker, sid in (("a", "CA1"), ("b", "CA2")):
            self.own(worker, sid)
            lane = Lane(A, sid, "", 0)
            events = [Event(A, sid, n, 0, lane, n).outgoing() for n in (1, 2, 3)]
            self.put(worker, self.model.calls[sid].leases[0], events, 0)

    def outbox(self, worker: str) -> Outbox:
        return self.engine.outbox(worker)

    # Owning

    @rule(
        worker=WORKERS,
        sid=st.sampled_from(CALLS),
        only_from=st.sampled_from([None, None, "", "a", "b"]),
        node=st.sampled_from(["", *NODES]),
    )
    def own(self, worker: str, sid: str, only_from: str | None = None, node: str = "n1") -> None:
        call = self.model.calls.get(sid)
        work = self.outbox(worker).own_call(sid, worker, b"meta", node=node, only_from=only_from)
        if call is not None and only_from is not None and call.owner not in {only_from, worker}:
            with pytest.raises(Fenced):
                self.do(work)
        else:
            self.taken(self.do(work), sid, worker, b"meta", node)

    @rule(worker=WORKERS, sid=st.sampled_from(CALLS), node=st.sampled_from(NODES))
    def inherit(self, worker: str, sid: str, node: str) -> None:
        call = self.model.calls.get(sid)
        held = (
            call is not None
            and not call.ended
            and call.owner not in {"", worker}
            and self.model.silence(call.node) < SILENT_S
        )
        lease = self.do(self.outbox(worker).inherit(sid, worker, b"more", node=node, silent_s=SILENT_S))
        if call is not None and held:
            assert lease is None
            call.heir = worker
        else:
            assert lease is not None
            self.taken(lease, sid, worker, b"more", node)

    def taken(self, lease: CallLease, sid: str, owner: str, meta: bytes, node: str) -> None:
        call = self.model.take(sid, owner, meta, node)
        assert lease == CallLease(
            sid,
            owner,
            call.epoch,
            self.model.next_sequence(sid),
            {"inbound": call.watermark} if call.watermark else {},
            call.ended,
            call.erased,
            call.meta,
        )
        call.leases.append(lease)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), worker=WORKERS, meta=st.sampled_from([b"", b"noted"]))
    def note(self, data: st.DataObject, worker: str, meta: bytes) -> None:
        lease = self.some_lease(data)
        call = self.model.calls[lease.call_sid]
        work = self.outbox(worker).note(lease, meta)
        if self.refused(lease, work):
            return
        call.meta, call.seen_at = meta, self.model.now

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), worker=WORKERS)
    def let_go(self, data: st.DataObject, worker: str) -> None:
        lease = self.some_lease(data)
        self.do(self.outbox(worker).let_go(lease))
        call = self.model.calls[lease.call_sid]
        if lease.epoch == call.epoch:
            call.owner = call.node = ""

    @rule(worker=WORKERS, nodes=st.sets(st.sampled_from(NODES), min_size=1), times=st.sampled_from([1, 4]))
    def beat(self, worker: str, nodes: set[str], times: int) -> None:
        for n in range(times):
            self.model.now += 4 if n else 0
            for node in sorted(nodes):
                assert self.do(self.outbox(worker).beat(node)) == self.model.beat(node)

    def refused(self, lease: CallLease, work: Coroutine[Any, Any, object]) -> bool:
        """Do it, unless it is refused as it ought to be."""
        call = self.model.calls[lease.call_sid]
        if not call.erased and lease.epoch == call.epoch:
            self.do(work)
            return False
        with pytest.raises(Erased if call.erased else Fenced):
            self.do(work)
        return True

    def some_lease(self, data: st.DataObject) -> CallLease:
        """Maybe a late one."""
        sid = data.draw(st.sampled_from(self.owned()))
        return data.draw(st.sampled_from(self.model.calls[sid].leases[-2:]))

    # Publishing

    @precondition(lambda self: self.owned())
    @rule(
        data=st.data(), worker=WORKERS, count=st.integers(0, 3), ended=st.sampled_from([False] * 9 + [True])
    )
    def publish(self, data: st.DataObject, worker: str, count: int, ended: bool) -> None:
        endpoints = data.draw(st.lists(ENDPOINTS, min_size=1, max_size=2, unique=True))
        repeat = data.draw(st.integers(0, 2))
        deliverer = data.draw(st.sampled_from(["", worker]))
        self.put(worker, *self.something(data, endpoints, count, repeat), ended=ended, deliverer=deliverer)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), worker=WORKERS)
    def publish_one(self, data: st.DataObject, worker: str) -> None:
        self.put(worker, *self.something(data, [A, B], 1, 0))

    def put(
        self,
        worker: str,
        lease: CallLease,
        events: list[Outgoing],
        mark: int,
        *,
        ended: bool = False,
        deliverer: str = "",
    ) -> None:
        call = self.model.calls[lease.call_sid]
        lines = [line(event.sequence) for event in events]
        marks = {"inbound": mark} if mark else {}
        given: list[LaneLease] = []

        async def publish() -> None:
            given.extend(
                await self.outbox(worker).publish(
                    lease, events, marks, lines=lines, ended=ended, deliverer=deliverer, lease_s=LEASE_S
                )
            )

        if not self.refused(lease, publish()):
            self.model.publish(lease.call_sid, events)
            call.watermark, call.ended = max(call.watermark, mark), call.ended or ended
            call.lines |= {line.number for line in lines}
            call.seen_at = self.model.now
            lanes = self.model.given(lease.call_sid, events) if deliverer else []
            assert sorted(one.lane for one in given) == sorted(lane.name for lane in lanes)
            for one in given:
                self.take_up(one, deliverer)

    def owned(self) -> list[str]:
        return sorted(sid for sid, call in self.model.calls.items() if call.leases)

    def something(
        self, data: st.DataObject, endpoints: list[str], count: int, repeat: int
    ) -> tuple[CallLease, list[Outgoing], int]:
        """A lease, maybe a late one, events, some of which are stored already, and a watermark."""
        lease = self.some_lease(data)
        call_sid = lease.call_sid
        events = []
        for endpoint in endpoints:
            lane = self.model.lanes.get(lane_name(endpoint, call_sid))
            following = lane.next if lane else 1
            events += [
                Event(endpoint, call_sid, n, 0, Lane(endpoint, call_sid, "", 0), n).outgoing()
                for n in range(max(1, following - repeat), following + count)
            ]
        return lease, events, max((event.sequence for event in events), default=0)

    @precondition(lambda self: self.owned())
    @rule(data=st.data(), worker=WORKERS, count=st.integers(1, 3))
    def crash_in_publish(self, data: st.DataObject, worker: str, count: int) -> None:
        lease, events, mark = self.something(data, [A, B], count, 0)
        publishing = self.do(self.begun(self.outbox(worker).publish(lease, events, {"inbound": mark})))
        self.engine.restart(worker, crash=True)
        self.do(self.settled(publishing))
        self.model.start(self.engine.start)
        stored = len(self.do(self.outbox(worker).records(Selection(call_sid=lease.call_sid), 1000)))
        before = sum(event.call_sid == lease.call_sid for event in self.model.events)
        assert stored in {before, before + len(events)}, "all of it or nothing"
        self.put(worker, lease, events, mark)  # nobody knows which: what is published again is stored once

    async def begun(self, work: Coroutine[Any, Any, object]) -> asyncio.Task[object]:
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        return task

    async def settled(self, task: asyncio.Task[object]) -> None:
        task.cancel()
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, Fenced | OutboxDown | asyncio.CancelledError)

    # Delivery

    @rule(
        worker=WORKERS,
        limit=st.integers(0, 6),
        each=st.sampled_from([100, 1, 2]),
        room=st.dictionaries(ENDPOINTS, st.integers(0, 3), max_size=2),
    )
    def claim(self, worker: str, limit: int, each: int, room: dict[str, int]) -> None:
        expected = self.model.due(limit, each, room)
        due = {lane.name for lane in self.model.claimable() if lane.due_at <= self.model.now}
        claimed = self.do(self.outbox(worker).claim(worker, limit, LEASE_S, each=each, room=room))
        lanes = [self.model.lanes[lease.lane] for lease in claimed]
        assert {lane.name for lane in lanes} <= due
        assert len({lane.name for lane in lanes}) == len(lanes)
        assert sorted(lane.rank for lane in lanes) == [lane.rank for lane in expected]
        for endpoint in (A, B):
            assert sum(lane.endpoint == endpoint for lane in lanes) <= room.get(endpoint, each)
        for lease in claimed:
            self.take_up(lease, worker)

    def take_up(self, lease: LaneLease, holder: str) -> None:
        lane = self.model.lanes[lease.lane]
        late = [old.epoch for old in self.model.late if old.lane == lane.name]
        assert lease.epoch > max([*late, lane.lease.epoch if lane.lease else 0])
        assert (lease.endpoint, lease.call_sid) == (lane.endpoint, lane.call_sid)
        assert (lease.head, lease.attempts) == (lane.head, lane.attempts)
        assert lease.first_failure == lane.first_failure
        self.model.claim(lease, holder)

    @rule(worker=WORKERS, limit=st.integers(1, 4))
    def claim_first(self, worker: str, limit: int) -> None:
        """When lanes of several priorities are due."""
        self.deliver(worker, ["bury"], "retry")
        self.replay(worker, Selection(states=frozenset({"dead"})))
        self.wait(BACKOFF_S)
        self.claim(worker, limit, 100, {})

    @precondition(lambda self: any(lane.lease for lane in self.model.lanes.values()))
    @rule(data=st.data(), worker=WORKERS, outcomes=st.lists(SETTLED | BACK, min_size=1, max_size=4))
    def settle(self, data: st.DataObject, worker: str, outcomes: list[str]) -> None:
        held = sorted(name for name, lane in self.model.lanes.items() if lane.lease)
        lane = self.model.lanes[data.draw(st.sampled_from(held))]
        for what in outcomes:
            if lane.lease is not None:
                self.settle_head(self.outbox(worker), lane, lane.lease, what)

    @rule(worker=WORKERS, outcomes=st.lists(SETTLED, min_size=1, max_size=4), last=BACK)
    def deliver(self, worker: str, outcomes: list[str], last: str) -> None:
        """Some of whatever is due; then every lane is given back."""
        self.claim_all(worker)
        for lane in list(self.model.lanes.values()):
            for what in (*outcomes, last):
                if lane.lease is not None:
                    self.settle_head(self.outbox(worker), lane, lane.lease, what)

    @rule(worker=WORKERS)
    def claim_all(self, worker: str) -> None:
        self.claim(worker, 100, 100, {})

    def settle_head(self, outbox: Outbox, lane: Lane, lease: LaneLease, what: str) -> None:
        if what == "release" or not lane.waiting:
            self.do(outbox.release(lease))
            lane.due_at = self.model.now
            self.model.void(lane)
        elif what == "retry":
            self.do(outbox.retry(lease, lane.head, BACKOFF_S, 500, "status 500"))
            lane.attempts, lane.due_at = lane.attempts + 1, self.model.now + BACKOFF_S
            lane.first_failure = self.model.now if lane.first_failure is None else lane.first_failure
            lane.waiting[0].tries += 1
            lane.waiting[0].last = (500, "status 500")
            self.model.void(lane)
        else:
            lane.due_at = self.model.now + LEASE_S
            if what == "ack":
                more = self.do(outbox.ack(lease, lane.head))
                lane.settle("done").delivered_at = self.model.now
                lane.first_failure = None
                assert more == bool(lane.waiting)
                if not more:
                    self.model.void(lane)
            else:
                self.do(outbox.bury(lease, lane.head, 413, "status 413"))
                lane.settle("dead").last = (413, "status 413")

    @precondition(lambda self: self.model.late)
    @rule(data=st.data(), worker=WORKERS, what=st.sampled_from(["peek", "ack", "retry", "bury", "release"]))
    def too_late(self, data: st.DataObject, worker: str, what: str) -> None:
        lease, outbox = data.draw(st.sampled_from(self.model.late)), self.outbox(worker)
        head = self.model.lanes[lease.lane].head
        works: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "peek": lambda: outbox.peek(lease),
            "ack": lambda: outbox.ack(lease, head),
            "retry": lambda: outbox.retry(lease, head, 1, None, "timeout"),
            "bury": lambda: outbox.bury(lease, head, None, "timeout"),
            "release": lambda: outbox.release(lease),
        }
        if what == "release":
            self.do(works[what]())
        else:
            with pytest.raises(Fenced):
                self.do(works[what]())

    @precondition(lambda self: self.model.lanes)
    @rule(data=st.data(), worker=WORKERS)
    def pause(self, data: st.DataObject, worker: str) -> None:
        endpoint = data.draw(st.sampled_from(sorted({lane.endpoint for lane in self.model.lanes.values()})))
        self.do(self.outbox(worker).pause(endpoint, "status 410"))
        self.model.paused.add(endpoint)

    # Time, and death

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.model.now += seconds

    @rule(worker=WORKERS, crash=st.booleans())
    def restart(self, worker: str, crash: bool) -> None:
        self.engine.restart(worker, crash=crash)
        self.model.start(self.engine.start)

    @rule(worker=WORKERS, node=st.sampled_from([*NODES, "a", "b"]))
    def died(self, worker: str, node: str) -> None:
        self.do(self.outbox(worker).died(node))
        self.model.died(node)

    # Operations

    @rule(worker=WORKERS, selection=SELECTIONS)
    def replay(self, worker: str, selection: Selection) -> None:
        assert self.do(self.outbox(worker).replay(selection)) == self.model.replay(selection)

    @rule(worker=WORKERS, states=STATES)
    def replay_all(self, worker: str, states: frozenset[State]) -> None:
        self.replay(worker, Selection(states=states))

    @rule(worker=WORKERS, selection=SELECTIONS, limit=st.integers(1, 5))
    def look(self, worker: str, selection: Selection, limit: int) -> None:
        selected = [event for event in self.model.events if event.is_selected(selection)]
        found = []
        before = None
        while page := self.do(self.outbox(worker).records(selection, limit, before=before)):
            assert len(page) <= limit
            found += page
            before = page[-1].serial
        assert {(r.endpoint, r.event_id) for r in found} == {(e.endpoint, e.event_id) for e in selected}
        assert len(found) == len(selected)
        for sid in CALLS:
            lines = self.model.calls[sid].lines if sid in self.model.calls else ()
            assert self.do(self.outbox(worker).transcript(sid)) == [line(n) for n in sorted(lines)]

    @rule(worker=WORKERS, sid=st.sampled_from(CALLS))
    def erase(self, worker: str, sid: str) -> None:
        assert self.do(self.outbox(worker).erase(sid)) == self.model.erase(sid)

    @rule(
        worker=WORKERS,
        body_age_s=st.sampled_from([0.0, 20.0]),
        call_age_s=st.sampled_from([50.0, 1000.0]),
        limit=st.sampled_from([2, 500]),
    )
    def purge(self, worker: str, body_age_s: float, call_age_s: float, limit: int) -> None:
        for _ in range(100):
            work = self.outbox(worker).purge(body_age_s=body_age_s, call_age_s=call_age_s, limit=limit)
            if not self.do(work):
                break
        else:
            pytest.fail("purge does not come to an end")
        self.model.purge(body_age_s, call_age_s)

    # What is true at any time, whoever looks

    @invariant()
    def counts_agree(self) -> None:
        assert self.do(self.outbox("a").stats()) == self.model.stats()
        assert self.do(self.outbox("b").next_due()) == self.model.next_due()
        assert self.do(self.outbox("a").next_due(without=[A])) == self.model.next_due([A])

    @invariant()
    def owners_agree(self) -> None:
        for sid in CALLS:
            assert self.do(self.outbox("a").known(sid)) == self.model.known(sid)
        orphans = self.model.orphans()
        assert self.do(self.outbox("b").orphans(SILENT_S, 100)) == orphans
        assert self.do(self.outbox("a").orphans(SILENT_S, 1)) == orphans[:1]

    @invariant()
    def records_agree(self) -> None:
        records = self.do(self.outbox("b").records(ALL, 1000))
        serials = [record.serial for record in records]
        assert serials == sorted(set(serials), reverse=True)
        shown = {(record.endpoint, record.event_id): record for record in records}
        assert len(shown) == len(records) == len(self.model.events)
        last: dict[str, int] = {}
        for event in self.model.events:
            record = shown[event.endpoint, event.event_id]
            assert event.shown() | {"serial": record.serial} == {
                name: getattr(record, name) for name in record.__slots__
            }
            assert record.serial > last.get(event.endpoint + event.call_sid, 0)
            last[event.endpoint + event.call_sid] = record.serial

    @invariant()
    def peeks_agree(self) -> None:
        for lane in self.model.lanes.values():
            if lane.lease is None:
                continue
            stored = self.do(self.outbox("a").peek(lane.lease, 3))
            assert [(s.lane, s.position, s.sequence, s.event_id, s.body, s.created_at) for s in stored] == [
                (lane.name, e.position, e.sequence, e.event_id, e.body, e.created_at)
                for e in lane.waiting[:3]
            ]


def check(engine: Engine, *, examples: int, steps: int) -> None:
    """Run the state machine against an engine: so many examples of so many steps."""

    class Tested(Machine):
        def __init__(self) -> None:
            super().__init__(engine)

    run_state_machine_as_test(
        Tested,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
