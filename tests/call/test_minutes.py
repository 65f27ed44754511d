import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.call.leg import Gap, Leg
from bridge.call.memo import About, Memo
from bridge.call.minutes import Minutes
from bridge.call.publisher import Taken
from bridge.config import Config
from bridge.outbox.lease import CallLease, Fenced
from bridge.outbox.outbox import Line, Outgoing
from bridge.transcript.heard import Heard
from bridge.transcript.loudness import Loudness

SETTINGS = Config.model_validate({"webhook": {"url": "https://agent.example.com/"}}).for_number("+2")
MEMO = Memo(About("CA1", "AC1", "+1", "+2", "inbound", {}), SETTINGS.webhook.url, "MZ1", ["inbound"], "start")


class Outbox:
    """The part of an outbox that minutes use."""

    def __init__(self) -> None:
        self.stored: list[Outgoing] = []
        self.lines: list[Line] = []
        self.watermarks: dict[str, int] = {}
        self.noted: list[tuple[int, bytes]] = []
        """What was said of the call, and after how many events."""
        self.let_go_at: int | None = None
        self.lease = CallLease("CA1", "j1", 1, 1, {}, ended=False)

    async def own_call(
        self, call_sid: str, owner: str, meta: bytes, *, node: str, only_from: str | None = None
    ) -> CallLease:
        assert (call_sid, owner, node, only_from) == ("CA1", "j1", "n1", None)
        assert Memo.decode(meta) == MEMO
        return self.lease

    async def note(self, lease: CallLease, meta: bytes) -> None:
        assert lease == self.lease
        self.noted.append((len(self.stored), meta))

    async def let_go(self, lease: CallLease) -> None:
        assert lease == self.lease
        self.let_go_at = len(self.stored)

    async def transcript(self, call_sid: str) -> list[Line]:
        assert call_sid == "CA1"
        return [Line(1, "inbound", 0, 10, "before")]

    async def publish(
        self,
        _lease: CallLease,
        outgoing: Sequence[Outgoing],
        watermarks: Mapping[str, int],
        *,
        lines: Sequence[Line] = (),
        ended: bool = False,
    ) -> None:
        self.stored += outgoing
        self.lines += lines
        self.watermarks |= watermarks
        assert ended == any(event.type == "call.ended" for event in outgoing)

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(event.body) for event in self.stored]


@asynccontextmanager
async def minutes(outbox: Outbox, taken: Taken | None = None) -> AsyncIterator[Minutes]:
    partials = SimpleNamespace(drop=lambda *_: None, offer=lambda *_: None)
    services: Any = SimpleNamespace(
        node="n1",
        outbox=outbox,
        delivery=outbox,  # what it is told to store
        partials=partials,
        wall=lambda: 1_795_000_000.5,
    )
    made = Minutes(SETTINGS, services, lambda: MEMO, "j1", taken)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def leg(watermark: int = 0) -> Any:
    """One whose offsets are its clock."""
    track = SimpleNamespace(name="inbound", ms=lambda offset: offset // 8, journal=SimpleNamespace(untold=0))
    session = SimpleNamespace(
        resent_until=800, loudness=Loudness(), watermark=SimpleNamespace(offset=watermark)
    )
    key = "inbound.j1"
    made: Any = SimpleNamespace(track=track, session=session, key=key)
    made.settled = lambda offset: {key: offset, "inbound": offset}
    made.told_key = lambda reason: Leg.told_key(made, reason)
    return made


def heard(text: str, start: int) -> Heard:
    return Heard(text, start, start + 80, (), "en", -0.1, ())


async def end(made: Minutes) -> None:
    await made.ended(reason="hangup", duration_ms=100, complete=True)


async def test_everything_is_told_in_the_order_in_which_it_was_said() -> None:
    outbox = Outbox()
    async with minutes(outbox) as made:
        made.started(["inbound"])
        made.digit("5")
        await made.final(leg(), heard("hello", 0), 80)
        made.gap(leg(), Gap(160, 160, 1600, "not_received"))
        await made.final(leg(), heard("world", 1600), 1680)
        await end(made)
    told = outbox.told()
    assert [event["type"] for event in told] == [
        *("call.started", "call.dtmf", "transcript.final", "transcript.gap", "transcript.final"),
        "call.ended",
    ]
    assert [event["data"]["sequence"] for event in told] == [1, 2, 3, 4, 5, 6]
    assert [event["data"].get("recovered") for event in told if "text" in event["data"]] == [True, False]
    assert [line["text"] for line in told[-1]["data"]["transcript"]] == ["hello", "world"]
    assert [(line.number, line.text) for line in outbox.lines] == [(1, "hello"), (2, "world")]
    assert outbox.watermarks == {"inbound.j1": 1680, "inbound.j1.gaps": 160, "inbound": 1680}


async def test_a_gap_at_the_beginning_is_told_once_and_settles_what_it_spans() -> None:
    outbox = Outbox()
    async with minutes(outbox) as made:
        made.gap(leg(), Gap(0, 4000, 16_000, "not_received"))
        await end(made)
    assert [event["type"] for event in outbox.told()] == ["transcript.gap", "call.ended"]
    assert outbox.watermarks == {"inbound.j1": 0, "inbound.j1.gaps": 0, "inbound": 16_000}
    lease = CallLease("CA1", "j1", 2, 7, outbox.watermarks, ended=False)
    async with minutes(outbox, Taken(lease, [])) as made:
        made.gap(leg(), Gap(0, 4000, 16_000, "not_received"))
        await end(made)
    assert [event["type"] for event in outbox.told()].count("transcript.gap") == 1


async def test_a_gap_after_audio_that_is_not_settled_settles_nothing_on_the_calls_clock() -> None:
    outbox = Outbox()
    async with minutes(outbox) as made:
        made.gap(leg(watermark=80), Gap(160, 160, 16_000, "not_received"))
        await end(made)
    assert outbox.watermarks == {"inbound.j1.gaps": 160}


async def test_whoever_takes_the_call_over_knows_how_far_it_is_told() -> None:
    outbox = Outbox()
    async with minutes(outbox) as made:
        owned = [made.owned]
        made.started(["inbound"])
        made.note()
        made.settle(leg(), 320)
        await made.let_go({"inbound": 400})
        owned.append(made.owned)
    assert owned == [False, True]
    assert [event["type"] for event in outbox.told()] == ["call.started"]
    assert outbox.noted == [(1, MEMO.encode())]
    assert outbox.watermarks == {"inbound.j1": 320, "inbound": 400}
    assert outbox.let_go_at == 1
    await made.release()


async def test_what_an_earlier_process_told_is_not_told_again() -> None:
    outbox = Outbox()
    marks = {"inbound.j1": 800, "inbound.j1.gaps": 500}
    lease = CallLease("CA1", "j1", 2, 7, marks, ended=False)
    async with minutes(outbox, Taken(lease, [Line(1, "inbound", 0, 10, "before")])) as made:
        made.started(["inbound"])
        made.gap(leg(), Gap(500, 500, 5000, "not_received"))
        made.gap(leg(), Gap(800, 500, 5000, "journal_full", settles=True))
        made.gap(leg(), Gap(501, 501, 5000, "not_received"))
        await made.final(leg(), heard("after", 5000), 5080)
        await end(made)
        assert made.stored("inbound.j1") == 800
        assert (made.last_text("inbound"), made.last_text("outbound")) == ("after", "")
    told = outbox.told()
    assert [event["type"] for event in told] == ["transcript.gap", "transcript.final", "call.ended"]
    assert told[0]["data"]["sequence"] == 7
    assert [line["text"] for line in told[-1]["data"]["transcript"]] == ["before", "after"]
    assert [line.number for line in outbox.lines] == [2]


async def test_a_gap_before_one_that_was_told_is_told_if_it_could_only_be_found_later() -> None:
    outbox = Outbox()
    lease = CallLease("CA1", "j1", 2, 7, {"inbound.j1.gaps": 1_000_000}, ended=False)
    async with minutes(outbox, Taken(lease, [])) as made:
        one = leg()
        made.gap(one, Gap(365_536, 300_000, 365_536, "journal_unreadable"))
        assert one.track.journal.untold == 1
        await end(made)
        assert one.track.journal.untold == 0
    assert [event["type"] for event in outbox.told()] == ["transcript.gap", "call.ended"]
    assert outbox.watermarks == {"inbound.j1.unreadable": 365_536}


async def test_after_the_end_there_are_only_late_transcripts() -> None:
    outbox = Outbox()
    lease = CallLease("CA1", "j1", 2, 7, {}, ended=True)
    async with minutes(outbox, Taken(lease, [])) as made:
        made.gap(leg(), Gap(160, 160, 1600, "not_received"))
        await made.final(leg(), heard("late", 0), 80)
        await end(made)
    assert [event["type"] for event in outbox.told()] == ["transcript.late"]


async def test_a_new_stream_of_a_call_that_is_over_has_no_minutes() -> None:
    outbox = Outbox()
    outbox.lease = CallLease("CA1", "j1", 2, 7, {}, ended=True)
    async with minutes(outbox) as made:
        with pytest.raises(Fenced, match=r"has its call\.ended already"):
            await made.run()


async def test_a_call_that_went_on_elsewhere_has_a_whole_transcript() -> None:
    outbox = Outbox()
    outbox.lease = CallLease("CA1", "j1", 2, 4, {"inbound.other": 10**6}, ended=False)
    async with minutes(outbox) as made:
        await made.final(leg(), heard("after", 1600), 1680)
        await end(made)
    told = outbox.told()
    assert [event["data"]["sequence"] for event in told] == [4, 5]
    assert [line["text"] for line in told[-1]["data"]["transcript"]] == ["before", "after"]
