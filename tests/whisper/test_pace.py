from bridge.whisper.pace import BURST_S, Pace


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    pace = Pace(1.5, now=100.0)
    assert pace.allowed(100.0) == int(BURST_S * 8000)
    pace.spend(8000)
    assert pace.allowed(100.0) == 0
    assert pace.allowed(100.5) == 6000
    assert pace.allowed(101.0) == 8000  # never more than a burst


def test_live_audio_never_feels_it() -> None:
    pace, now = Pace(1.5, now=0.0), 0.0
    for _ in range(1000):
        now += 0.032
        assert pace.allowed(now) >= 256
        pace.spend(256)
