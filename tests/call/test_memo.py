from dataclasses import replace

import pytest

from bridge.call.memo import About, Memo, our_number
from bridge.config import Config

ABOUT = About("CA1", "AC1", "+1", "+2", "inbound", {"tenant": "acme"})


def test_a_memo_can_be_read_again() -> None:
    memo = Memo(ABOUT, "https://agent.example.com/", "MZ1", ["inbound"], "start", 1_795_000_000.25, "hangup")
    assert Memo.decode(memo.encode()) == memo
    memo = replace(memo, ended_at=1_795_000_001.5, boot="b1", began_monotonic=12.5)
    assert Memo.decode(memo.encode()) == memo


def test_of_a_call_that_begins_little_is_known() -> None:
    settings = Config.model_validate({"webhook": {"url": "https://agent.example.com/"}}).for_number("+2")
    memo = Memo.of(ABOUT, settings)
    assert memo == Memo(ABOUT, "https://agent.example.com/", "", [], "start")


@pytest.mark.parametrize("text", [b"", b"{}", b"[1]", b"\xff", b'{"about": {"call_sid": 7}}'])
def test_what_is_no_memo_is_none(text: bytes) -> None:
    assert Memo.decode(text) is None


def test_our_number_is_the_one_called_or_the_one_that_calls() -> None:
    assert our_number("+1", "+2", "inbound") == "+2"
    assert our_number("+1", "+2", "outbound-api") == "+1"
    assert our_number("", "", "") == ""


def test_where_the_clock_is_0_on_this_machine() -> None:
    settings = Config.model_validate({"webhook": {"url": "https://agent.example.com/"}}).for_number("+2")
    memo = replace(Memo.of(ABOUT, settings), began_at=1000.0, boot="b1", began_monotonic=50.0)
    assert memo.began(now=80.0, wall=1030.5, boot="b1") == 50.0
    assert memo.began(now=80.0, wall=1030.5, boot="b2") == 49.5  # another machine
    assert memo.began(now=40.0, wall=1030.5, boot="b1") == 9.5  # such a clock does not go back
    assert replace(memo, boot="").began(now=80.0, wall=1030.5, boot="") == 49.5
