from bridge.whisper.pace import BURST_S, Pace


def test_a_backlog_never_goes_faster_than_the_rate() -> None:
    pace = Pace(1.5, now=100.0)
    assert pace.allowed(100.0) == 0
    assert pace.allowed(100.5) == 6000
    pace.spend(6000)
    assert pace.allowed(100.75) == 3000


def test_live_audio_earns_a_reserve_for_bursts() -> None:
    pace, now = Pace(1.5, now=0.0), 0.0
    for _ in range(100):
        now += 0.032
        assert pace.allowed(now) >= 256
        pace.spend(256)
    assert pace.allowed(now) > BURST_S * 8000 * 0.9
    assert pace.allowed(now + 60) == BURST_S * 8000
