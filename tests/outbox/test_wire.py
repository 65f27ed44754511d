"""Frames are the same however the stream is cut, and arguments and results those of the protocol."""

import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from bridge.outbox import wire
from bridge.outbox.lease import CallLease
from bridge.outbox.outbox import Line, Selection
from bridge.outbox.sqlite import Sqlite
from tests.outbox.events import A, event


def body(frame: bytes) -> bytes:
    (found,) = wire.Frames().cut(frame)
    return found


@given(
    numbers=st.lists(st.integers(0, 2**40), max_size=5),
    text=st.text(max_size=300),
    cuts=st.lists(st.integers(1, 200)),
)
def test_frames_are_found_however_the_stream_is_cut(numbers: list[int], text: str, cuts: list[int]) -> None:
    stream = b"".join(wire.frame(number, "", text) for number in numbers)
    frames, found, at = wire.Frames(), [], 0
    for length in [*cuts, len(stream)]:
        found += frames.cut(stream[at : at + length])
        at += length
    assert [wire.unpacked(each)[0] for each in found] == numbers
    assert all(msgspec.msgpack.decode(wire.unpacked(each)[2]) == text for each in found)


def test_a_frame_that_is_too_long_is_neither_made_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    long = wire.frame(1, "", "x" * 100)
    monkeypatch.setattr(wire, "LONGEST", 50)
    with pytest.raises(ValueError, match="105 bytes are too many"):
        wire.frame(1, "", "x" * 100)
    with pytest.raises(ValueError, match="too long"):
        wire.Frames().cut(long[:4])


@pytest.mark.parametrize("garbage", [b"", b"\xc1", msgspec.msgpack.encode([1, "beat"]), b"\x93\x01\xa4beat"])
def test_what_is_no_request_is_refused(garbage: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.unpacked(garbage)


def test_every_method_of_the_protocol_is_known_and_no_other() -> None:
    methods = {name for name, _ in inspect.getmembers(Sqlite, inspect.iscoroutinefunction)}
    assert set(wire.METHODS) == {name for name in methods if not name.startswith("_")} - {"open", "close"}


LEASE = CallLease("CA1", "me", 3, 8, {"inbound": 160}, ended=False, meta=b"\x00\xff")


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "received"),
    [
        (
            "publish",
            (LEASE, (event(1),), MappingProxyType({"inbound": 5})),
            {"lines": [Line(1, "inbound", 0, 1, "žluťoučký")]},
            {
                "lease": LEASE,
                "events": [event(1)],
                "watermarks": {"inbound": 5},
                "lines": [Line(1, "inbound", 0, 1, "žluťoučký")],
                "ended": False,
            },
        ),
        ("next_due", (), {"without": {A: 1}.keys()}, {"without": [A]}),
        ("next_due", (), {}, {"without": []}),
        (
            "records",
            (Selection(states=frozenset({"dead"}), event_ids=("evt",), since=1.5), 10),
            {},
            {
                "selection": Selection(states=frozenset({"dead"}), event_ids=("evt",), since=1.5),
                "limit": 10,
                "before": None,
            },
        ),
    ],
)
def test_arguments_arrive_as_they_were_given(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], received: Mapping[str, Any]
) -> None:
    method = wire.METHODS[name]
    number, what, raw = wire.unpacked(body(wire.frame(7, name, method.arguments(*args, **kwargs))))
    assert (number, what) == (7, name)
    arguments = msgspec.structs.asdict(method.asked.decode(raw))
    for key, value in received.items():
        found = arguments[key]
        assert (list(found) if isinstance(value, list) else found) == value
    assert type(arguments.get("lease")) in {CallLease, type(None)}


def test_a_call_with_arguments_that_the_method_has_not_is_refused() -> None:
    for args, kwargs in (((), {}), (("n1", "n2"), {}), (("n1",), {"nodes": 1})):
        with pytest.raises(TypeError):
            wire.METHODS["beat"].arguments(*args, **kwargs)
    with pytest.raises(TypeError, match="object cannot be sent"):
        wire.frame(1, "beat", wire.METHODS["beat"].arguments(object()))
