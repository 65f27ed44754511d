import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from bridge import events, metrics
from bridge.call import publisher as module
from bridge.call.publisher import Publisher, Taken, take_over
from bridge.outbox.lease import CallLease, Erased, Fenced
from bridge.outbox.outbox import Line, OutboxDown, Outgoing

ABOUT = {
    "call_sid": "CA1",
    "account_sid": "AC1",
    "stream_sid": "MZ1",
    "from_": "+1",
    "to": "+2",
    "direction": "inbound",
    "parameters": {},
}


class Outbox:
    """The part of an outbox that a publisher uses, able to be down and to refuse."""

    def __init__(self) -> None:
        self.next_sequence = 1
        self.down = 0
        self.fenced = False
        self.over = False
        self.erased = False
        self.stored: list[Outgoing] = []
        self.lines: list[Line] = []
        self.watermarks: dict[str, int] = {}
        self.noted: list[bytes] = []
        self.ended = False
        self.epoch = 1
        self.owner = ""

    async def own_call(
        self, call_sid: str, owner: str, meta: bytes, *, node: str, only_from: str | None = None
    ) -> CallLease:
        assert node == "n1"
        self._fail()
        if only_from not in {None, self.owner}:
            raise Fenced("another process has the call")
        lease = CallLease(call_sid, owner, self.epoch, self.next_sequence, {}, ended=self.over, meta=meta)
        return replace(lease, erased=self.erased)

    async def note(self, lease: CallLease, meta: bytes) -> None:
        assert lease.call_sid == "CA1"
        self._fail()
        self.noted.append(meta)

    async def transcript(self, call_sid: str) -> list[Line]:
        assert call_sid == "CA1"
        self._fail()
        return list(self.lines)

    async def publish(
        self,
        lease: CallLease,
        outgoing: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        lines: Sequence[Line] = (),
        ended: bool = False,
    ) -> None:
        assert lease.call_sid == "CA1"
        self._fail()
        if self.erased:
            raise Erased("the call was erased")
        if self.fenced:
            raise Fenced("another process has the call")
        self.stored += outgoing
        self.lines += lines
        self.watermarks |= watermarks
        self.ended |= ended

    def _fail(self) -> None:
        if self.down:
            self.down -= 1
            raise OutboxDown("the disk is away")


async def taken(outbox: Outbox, *, only_from: str | None = None) -> Taken:
    return await take_over(outbox, "CA1", "me", b"memo", node="n1", only_from=only_from)  # type: ignore[arg-type]  # as below


@asynccontextmanager
async def publisher(outbox: Outbox, *subscribed: str) -> AsyncIterator[tuple[Publisher, asyncio.Task[None]]]:
    made = Publisher(
        outbox,  # type: ignore[arg-type]  # the part that is used
        outbox.publish,
        call_sid="CA1",
        take_over=lambda: taken(outbox),
        endpoint="https://agent.example.com/",
        subscribed=frozenset(subscribed or ("call.started", "call.dtmf", "call.ended")),
        about=lambda: ABOUT,
        clock=lambda: 1_795_000_000.5,
    )
    task = asyncio.create_task(made.run())
    try:
        yield made, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def digit(to: Publisher, value: str, **watermarks: int) -> None:
    await to.publish(events.CallDtmf, events.CallDtmfData, watermarks=watermarks, digit=value)


def sequences(outbox: Outbox) -> list[int]:
    return [json.loads(stored.body)["data"]["sequence"] for stored in outbox.stored]


async def test_events_are_numbered_in_the_order_they_were_said() -> None:
    outbox = Outbox()
    async with publisher(outbox) as (to, _):
        to.post(events.CallStarted, events.CallStartedData, tracks=["inbound"])
        await digit(to, "1", inbound=800)
        await digit(to, "2")
    assert [stored.type for stored in outbox.stored] == ["call.started", "call.dtmf", "call.dtmf"]
    assert sequences(outbox) == [1, 2, 3]
    assert outbox.watermarks == {"inbound": 800}
    first: dict[str, Any] = json.loads(outbox.stored[0].body)
    assert first["timestamp"] == events.timestamp(1_795_000_000.5)
    assert len({stored.event_id for stored in outbox.stored}) == 3


async def test_a_call_goes_on_where_its_last_owner_stopped() -> None:
    outbox = Outbox()
    outbox.next_sequence = 7
    async with publisher(outbox) as (to, _):
        await digit(to, "1")
    assert sequences(outbox) == [7]


async def test_events_nobody_asked_for_take_no_number_but_move_the_watermark() -> None:
    outbox = Outbox()
    async with publisher(outbox, "call.started") as (to, _):
        await digit(to, "1", inbound=80)
        await to.publish(events.CallStarted, events.CallStartedData, tracks=[])
    assert sequences(outbox) == [1]
    assert outbox.watermarks == {"inbound": 80}


async def test_watermarks_may_move_over_what_is_not_told() -> None:
    outbox = Outbox()
    async with publisher(outbox, "transcript.final", "call.dtmf") as (to, _):
        await to.settle({"inbound": 800})
        assert outbox.watermarks == {"inbound": 800}
        await digit(to, "1")
    assert sequences(outbox) == [1]


async def test_while_the_outbox_is_down_events_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    outbox = Outbox()
    outbox.down = 3
    async with publisher(outbox) as (to, _):
        await digit(to, "1")
        outbox.down = 3
        await digit(to, "2")
    assert sequences(outbox) == [1, 2]


async def test_a_newer_owner_ends_the_publisher() -> None:
    outbox = Outbox()
    outbox.fenced = True
    async with publisher(outbox) as (to, task):
        to.post(events.CallDtmf, events.CallDtmfData, digit="1")
        with pytest.raises(Fenced):
            await task


async def test_call_ended_marks_the_call() -> None:
    outbox = Outbox()
    async with publisher(outbox) as (to, _):
        await to.publish(
            events.CallEnded,
            events.CallEndedData,
            reason="hangup",
            duration_ms=1,
            complete=True,
            transcript=[],
        )
    assert outbox.ended


async def test_a_full_queue_drops_digits_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE", 3)
    dropped = metrics.EVENTS_DROPPED._value.get()
    outbox = Outbox()
    outbox.down = 10**6
    async with publisher(outbox) as (to, _):
        for _ in range(5):
            to.post(events.CallDtmf, events.CallDtmfData, digit="1")
    assert metrics.EVENTS_DROPPED._value.get() - dropped == 2


async def test_a_call_that_an_earlier_process_began_is_not_begun_again() -> None:
    outbox = Outbox()
    outbox.next_sequence = 4
    async with publisher(outbox) as (to, _):
        to.post(events.CallStarted, events.CallStartedData, tracks=["inbound"])
        await digit(to, "1")
    assert [(s.type, s.sequence) for s in outbox.stored] == [("call.dtmf", 4)]


async def test_what_was_said_is_stored_and_counted_whoever_is_told() -> None:
    outbox = Outbox()
    outbox.epoch = 2
    outbox.lines = [Line(1, "inbound", 0, 10, "before")]
    async with publisher(outbox, "call.ended") as (to, _):
        for number in range(2):
            line = Line(0, "inbound", 20 + number, 30, f"after {number}")
            await to.publish(events.CallDtmf, events.CallDtmfData, line=line, digit="1")
    assert outbox.stored == []
    assert [(line.number, line.text) for line in outbox.lines[1:]] == [(2, "after 0"), (3, "after 1")]


async def test_a_call_is_taken_over_with_what_was_said_in_it() -> None:
    outbox = Outbox()
    outbox.down, outbox.lines = 1, [Line(1, "inbound", 0, 10, "before")]
    assert (await taken(outbox)).lines == []  # nobody had it before: there is nothing to ask for
    outbox.epoch = 2
    assert (await taken(outbox)).lines == outbox.lines
    outbox.over = True
    assert (await taken(outbox)).lease.ended


async def test_a_call_is_left_to_whoever_has_it_now() -> None:
    outbox = Outbox()
    outbox.owner = "somebody"
    with pytest.raises(Fenced):
        await taken(outbox, only_from="me")


async def test_a_call_that_was_erased_is_told_from_one_that_is_over() -> None:
    outbox = Outbox()
    outbox.over = outbox.erased = True
    outbox.down = 1
    async with publisher(outbox) as (_, task):
        with pytest.raises(Erased):
            await task
    assert outbox.stored == []


async def test_a_gap_is_stored_with_how_far_it_was_told() -> None:
    outbox = Outbox()
    async with publisher(outbox) as (to, _):
        to.post(events.CallDtmf, events.CallDtmfData, watermarks={"inbound.gaps": 7}, digit="1")
        await digit(to, "2")
    assert outbox.watermarks == {"inbound.gaps": 7}


async def test_what_is_noted_waits_for_the_outbox_too_and_moves_are_silent() -> None:
    outbox = Outbox()
    async with publisher(outbox) as (to, _):
        await digit(to, "1")
        outbox.down = 2
        to.note(b"memo")
        to.move({"inbound": 7})
        await digit(to, "2")
    assert outbox.noted == [b"memo"]
    assert outbox.watermarks == {"inbound": 7}
    assert len(outbox.stored) == 2
