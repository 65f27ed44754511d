from bridge.outbox.lease import REPLAY, Erased, Fenced, LaneLease


def lane(name: str) -> LaneLease:
    return LaneLease(name, "https://a.example/", "CA1", 1, 1, 0, None)


def test_a_lane_of_replays_is_known_by_its_name() -> None:
    assert lane(f"tag/CA1{REPLAY}").replay
    assert not lane("tag/CA1").replay


def test_who_is_fenced_off_a_call_is_told_which() -> None:
    assert str(Fenced.call("CA1")) == "The call CA1 has a newer owner."
    assert isinstance(Erased.call("CA1"), Erased)
