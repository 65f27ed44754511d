from bridge.transcript.heard import Heard
from bridge.whisper.hold import ROOM, WAIT_S, Hold


def final(start: int) -> Heard:
    return Heard(str(start), start, start + 10, (), None, None, ())


def published(hold: Hold, now: float, *, missing_before: int) -> list[tuple[int, bool]]:
    out = []
    while (ready := hold.next(now, lambda heard: heard.start >= missing_before)) is not None:
        out.append((ready[0].start, ready[1]))
    return out


def test_what_misses_nothing_does_not_wait() -> None:
    hold = Hold()
    hold.add(final(100), 0.0)
    assert published(hold, 0.0, missing_before=1000) == [(100, False)]


def test_a_final_waits_for_the_one_before_it_and_both_come_in_order() -> None:
    hold = Hold()
    hold.add(final(500), 0.0)
    assert published(hold, 1.0, missing_before=300) == []
    hold.add(final(100), 1.0)
    assert published(hold, 1.0, missing_before=300) == [(100, False)]
    assert published(hold, 1.0, missing_before=1000) == [(500, False)]


def test_it_does_not_wait_for_ever_nor_does_what_comes_after_it() -> None:
    hold = Hold()
    hold.add(final(500), 0.0)
    hold.add(final(600), 3.0)
    assert published(hold, WAIT_S - 0.1, missing_before=300) == []
    assert hold.next(WAIT_S, lambda _: True) == (final(500), True)
    assert len(hold) == 1
    assert published(hold, WAIT_S, missing_before=1000) == [(600, False)]


def test_only_so_many_wait() -> None:
    hold = Hold()
    for number in range(ROOM + 5):
        hold.add(final(1000 + number), 0.0)
    assert len(published(hold, 0.0, missing_before=0)) == 5
