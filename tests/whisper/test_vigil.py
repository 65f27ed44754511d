import pytest

from bridge.whisper.vigil import ASK_S, BLOCKED_S, LOOK_S, Verdict, Vigil


def watch(vigil: Vigil, start: float, seconds: float) -> list[tuple[float, Verdict]]:
    """What a server that says nothing gets, and when, looked at each second."""
    looks = (start + n * LOOK_S for n in range(1, int(seconds / LOOK_S) + 1))
    verdicts = ((now, vigil.look(now, unsent=0, writable=True)) for now in looks)
    return [(now, verdict) for now, verdict in verdicts if verdict is not Verdict.FINE]


def test_a_server_that_talks_is_not_asked() -> None:
    vigil = Vigil(0.0, knows_health=True)
    for second in range(100):
        vigil.heard(float(second))
        assert vigil.look(second + 0.5, unsent=0, writable=True) is Verdict.FINE


def test_silence_is_asked_about_and_two_misses_are_enough() -> None:
    vigil = Vigil(0.0, knows_health=True)
    assert watch(vigil, 0, 35)[:3] == [
        (ASK_S, Verdict.ASK),
        (2 * ASK_S, Verdict.ASK),
        (3 * ASK_S, Verdict.UNANSWERED),
    ]


def test_an_answer_is_good_for_another_while() -> None:
    vigil = Vigil(0.0, knows_health=None)
    for minute in range(3):
        start = minute * (ASK_S + 1)
        assert watch(vigil, start, ASK_S + 0.5) == [(start + ASK_S, Verdict.ASK)]
        assert vigil.asking
        vigil.answered(start + ASK_S + 1)
    assert watch(vigil, 33, 40)[-1][1] is Verdict.UNANSWERED  # once it has answered, silence means something


def test_a_server_that_may_not_know_the_question_is_left_alone() -> None:
    vigil = Vigil(0.0, knows_health=None)
    assert [verdict for _, verdict in watch(vigil, 0, 500)] == [Verdict.ASK, Verdict.ASK]
    assert watch(Vigil(0.0, knows_health=False), 0, 500) == []


def test_a_server_that_answers_with_errors_does_not_know_the_question() -> None:
    vigil, asked = Vigil(0.0, knows_health=None), 0
    for second in range(1, 500):
        if vigil.look(float(second), unsent=0, writable=True) is Verdict.ASK:
            asked += 1
            vigil.error(second + 0.1)
    assert asked == 2


@pytest.mark.parametrize("knows", [True, None])
def test_an_error_and_then_nothing_is_a_zombie(knows: bool | None) -> None:
    vigil = Vigil(0.0, knows_health=knows)
    vigil.error(5.0)
    assert watch(vigil, 5.0, 60)[:3] == [
        (6.0, Verdict.ASK),
        (6.0 + ASK_S, Verdict.ASK),
        (6.0 + 2 * ASK_S, Verdict.UNANSWERED),
    ]


def test_an_error_after_which_it_goes_on_is_only_an_error() -> None:
    vigil = Vigil(0.0, knows_health=True)
    vigil.error(5.0)
    assert watch(vigil, 5.0, 1.0) == [(6.0, Verdict.ASK)]
    vigil.answered(6.1)
    assert watch(vigil, 6.1, 9.5) == []


def test_a_full_buffer_that_nothing_leaves_is_blocked() -> None:
    vigil = Vigil(0.0, knows_health=True)
    assert vigil.look(1.0, unsent=65_000, writable=False) is Verdict.FINE
    assert vigil.look(2.0, unsent=65_000, writable=False) is Verdict.FINE
    assert vigil.look(1.0 + BLOCKED_S, unsent=65_000, writable=False) is Verdict.BLOCKED


def test_a_slow_reader_is_not() -> None:
    vigil = Vigil(0.0, knows_health=True)
    for second in range(1, 9):
        assert vigil.look(float(second), unsent=65_000 - 100 * second, writable=False) is Verdict.FINE
