from tests.benchmarks.steps import LEVELS, Steps


def climbed(steps: Steps, busy: dict[int, float]) -> list[int]:
    """The levels of a system that is so busy from these numbers of calls on."""
    found: list[int] = []
    level = steps.after(0, 0.0)
    while level is not None:
        found.append(level)
        level = steps.after(level, next(share for calls, share in reversed(busy.items()) if calls <= level))
    return found


def test_steps_are_coarse_while_there_is_time_to_spare_and_fine_where_it_ends() -> None:
    assert climbed(Steps(), {0: 0.1, 300: 0.6})[:7] == [10, 100, 200, 300, 350, 400, 450]
    assert climbed(Steps(), {0: 0.1, 300: 0.6})[-1] == LEVELS[-1]
    assert climbed(Steps(), {0: 0.9})[:3] == [10, 50, 100]


def test_what_was_asked_for_is_measured() -> None:
    assert climbed(Steps([1, 7, 50]), {0: 0.1}) == [1, 7, 50]
