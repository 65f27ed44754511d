import itertools

import pytest

from bridge.call.carrier import IDLE_S, LASTING_S, MUTE_S, Carrier


class Sockets:
    """Notes which socket was closed, and with which code."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, int]] = []

    def stream(self, carrier: Carrier, number: int, now: float = 0.0) -> None:
        carrier.begin(lambda code: self.closed.append((number, code)), now)


def test_the_latest_stream_counts_and_the_one_before_it_is_closed() -> None:
    sockets, carrier = Sockets(), Carrier(0.0, waiting=True)
    sockets.stream(carrier, 1)
    first = carrier.generation
    assert not carrier.waiting
    sockets.stream(carrier, 2)
    assert sockets.closed == [(1, 1000)]
    assert carrier.generation > first
    carrier.close(1001)
    carrier.close(1001)
    assert sockets.closed == [(1, 1000), (2, 1001)]


def test_a_stream_that_is_cut_is_waited_for_and_brings_nothing_more() -> None:
    sockets, carrier = Sockets(), Carrier(0.0, waiting=False)
    sockets.stream(carrier, 1)
    generation = carrier.generation
    carrier.cut("disconnected", 1.0)
    assert (carrier.waiting, carrier.cut_for) == (True, "disconnected")
    assert carrier.generation > generation
    assert sockets.closed == [(1, 1000)]


@pytest.mark.parametrize(("lived_s", "tries"), [(LASTING_S, 3), (LASTING_S + 1, 0)])
def test_a_stream_that_lasted_was_no_vain_try(lived_s: float, tries: int) -> None:
    carrier = Carrier(0.0, waiting=True)
    carrier.tries = 3
    Sockets().stream(carrier, 1, 10.0)
    carrier.cut("disconnected", 10.0 + lived_s)
    assert carrier.tries == tries


def test_a_mute_stream_is_asked_about_once_in_a_while_and_idle_in_the_end() -> None:
    carrier = Carrier(0.0, waiting=False)
    carrier.heard(5.0)
    asked = [now for now in range(int(IDLE_S)) if carrier.mute(now)]
    assert asked[0] == 5 + MUTE_S + 1
    assert {later - earlier for earlier, later in itertools.pairwise(asked)} == {MUTE_S + 1}
    assert carrier.silent_s(35.0) == 30.0
    assert not carrier.idle(5.0 + IDLE_S)
    assert carrier.idle(5.1 + IDLE_S)
    carrier.confirmed()
    assert not carrier.idle(asked[-1] + IDLE_S)


def test_without_a_stream_nothing_is_mute_or_idle() -> None:
    carrier = Carrier(0.0, waiting=True)
    assert not carrier.mute(IDLE_S * 2)
    assert not carrier.idle(IDLE_S * 2)
