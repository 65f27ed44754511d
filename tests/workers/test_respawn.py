from bridge.workers.respawn import LAST_S, SHORT_S, pause_s


def test_a_worker_that_has_lived_is_replaced_at_once() -> None:
    assert pause_s(0.0, SHORT_S) == 0.0
    assert pause_s(LAST_S, 3600.0) == 0.0


def test_one_that_dies_again_and_again_is_waited_for_longer_and_longer_up_to_a_bound() -> None:
    pauses, pause = [], 0.0
    for _ in range(8):
        pause = pause_s(pause, 0.5)
        pauses.append(pause)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, LAST_S, LAST_S, LAST_S]
