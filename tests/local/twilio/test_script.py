import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.local.twilio import Burst, Hole, Script
from bridge.local.twilio.script import beats


def test_an_unscripted_call_is_due_every_20_ms_and_nothing_accumulates() -> None:
    due = [beat.due_s for beat in beats(Script(), 180_001)]

    assert due[0] == 0
    assert due[180_000] == 3600
    assert due[1] == pytest.approx(0.02)


def test_speed_and_a_later_first_frame() -> None:
    assert list(beats(Script(speed=4.0), 12, 10)) == [(10, 0.0), (11, 0.005)]


def test_a_burst_holds_its_frames_until_its_end() -> None:
    due = [round(beat.due_s * 1000) for beat in beats(Script(bursts=(Burst(40, 60),)), 7)]

    assert due == [0, 20, 100, 100, 100, 100, 120]


@pytest.mark.parametrize(
    ("at_ms", "inbound", "outbound"),
    [(80, True, True), (100, False, False), (199, False, False), (200, True, False)],
)
def test_holes_of_all_tracks_and_of_one(at_ms: int, inbound: bool, outbound: bool) -> None:
    script = Script(holes=(Hole(100, 100), Hole(200, 20, "outbound")))

    assert (script.sends("inbound", at_ms), script.sends("outbound", at_ms)) == (inbound, outbound)


@given(st.floats(0, 500), st.integers(0, 9), st.integers(0, 2000), st.integers(0, 2000))
def test_jitter_and_bursts_never_reorder_and_never_send_early(
    jitter_ms: float, seed: int, at_ms: int, hold_ms: int
) -> None:
    script = Script(jitter_ms=jitter_ms, seed=seed, bursts=(Burst(at_ms, hold_ms),))

    due = [beat.due_s for beat in beats(script, 100)]

    assert due == sorted(due)
    assert due == [beat.due_s for beat in beats(script, 100)]
    assert all(
        frame * 0.02 <= one + 1e-9 and one <= frame * 0.02 + (jitter_ms + hold_ms) / 1000 + 1e-9
        for frame, one in enumerate(due)
    )
