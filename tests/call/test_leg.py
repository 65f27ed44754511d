import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.audio.journal import Journal
from bridge.audio.remains import SEGMENT
from bridge.audio.upsample import FRAME
from bridge.call.leg import Gap, Leg, follower, watermark_key
from bridge.call.track import Track


def leg_of(directory: Path, *, settled: int = 0) -> Leg:
    journal = Journal(directory / "inbound")
    session: Any = SimpleNamespace(cursor=0, watermark=SimpleNamespace(offset=settled))
    key = watermark_key("inbound", "j1")
    return Leg(Track("inbound", journal, lambda *_: None), session, key)


def test_watermarks_of_two_journals_have_nothing_to_do_with_each_other(tmp_path: Path) -> None:
    leg = leg_of(tmp_path)
    assert (leg.key, leg.told_key("not_received")) == ("inbound.j1", "inbound.j1.gaps")
    assert watermark_key("inbound", "j2") != leg.key


def test_what_cannot_be_read_is_told_by_itself_as_it_may_lie_before_what_never_came(tmp_path: Path) -> None:
    leg = leg_of(tmp_path)
    assert leg.told_key("journal_unreadable") == "inbound.j1.unreadable"


def test_what_was_said_to_be_settled_with_a_final_need_not_be_said_again(tmp_path: Path) -> None:
    leg = leg_of(tmp_path)
    leg.settled(500)
    leg.settled(300)
    assert leg.noted == 500


def test_what_never_came_is_found_again(tmp_path: Path) -> None:
    leg = leg_of(tmp_path)
    leg.track.media(0, b"x" * 160, 0.0)
    leg.track.new_stream()
    leg.track.media(80_000, b"x" * 160, 10.0)
    gaps = [Gap(8160, 160, 80_000, "not_received")]
    assert leg.gaps() == gaps
    assert leg_of(tmp_path).gaps() == gaps


@pytest.mark.parametrize(
    ("settled", "gaps"),
    [
        (0, [Gap(2 * SEGMENT, 8 + SEGMENT, 8 + 2 * SEGMENT, "journal_unreadable")]),
        (SEGMENT + 50, [Gap(2 * SEGMENT, 58 + SEGMENT, 8 + 2 * SEGMENT, "journal_unreadable")]),
        (2 * SEGMENT, []),
    ],
)
def test_what_cannot_be_read_any_more_is_a_gap_unless_it_was_finalised(
    tmp_path: Path, settled: int, gaps: list[Gap]
) -> None:
    journal = Journal(tmp_path / "inbound")
    journal.seam(8)
    journal.append(b"x" * (3 * SEGMENT))
    (tmp_path / "inbound" / "000001.ulaw").unlink()
    assert leg_of(tmp_path, settled=settled).gaps() == gaps


def test_what_the_session_gives_up_settles_only_what_lies_at_the_watermark(tmp_path: Path) -> None:
    leg = leg_of(tmp_path, settled=1000)
    assert leg.lost(1000, 2000, "journal_full") == Gap(2000, 1000, 2000, "journal_full", settles=True)
    assert not leg.lost(1001, 2000, "journal_unreadable").settles


async def test_a_leg_is_behind_while_a_frame_waits_and_its_task_runs(tmp_path: Path) -> None:
    leg = leg_of(tmp_path)
    leg.task = asyncio.create_task(asyncio.sleep(0))
    assert leg.behind_s == 0
    leg.track.media(0, b"x" * 256, 0.0)
    assert (leg.behind_s, leg.succeeded) == (FRAME / 8000, False)
    await leg.task
    assert (leg.behind_s, leg.succeeded) == (0, True)


def test_how_far_a_track_is_settled_is_said_for_this_journal_and_for_those_without_it(tmp_path: Path) -> None:
    leg = leg_of(tmp_path)
    leg.track.media(8000, b"x" * 160, 0.0)
    assert leg.settled(160) == {"inbound.j1": 160, "inbound": 8160}
    leg.continued = True
    assert leg.settled(160) == {"inbound.j1": 160, "inbound": 8160, "inbound.j1.begins": 8000}


def test_a_journal_is_of_use_until_the_next_one_begins() -> None:
    marks = {"inbound": 900, "inbound.j1": 5, "inbound.j2.begins": 400, "inbound.j3.begins": 700}
    assert follower(marks, "inbound", 0) == 400
    assert follower(marks, "inbound", 400) == 700
    assert follower(marks, "inbound", 700) is None
    assert follower(marks, "outbound", 0) is None
