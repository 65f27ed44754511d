from bridge.audio.seams import Seam, Seams


def test_between_seams_offsets_and_the_clock_advance_together() -> None:
    seams = Seams([Seam(0, 800, 800), Seam(1000, 80_000, 1800)])
    assert [seams.clock(offset) for offset in (0, 999, 1000, 1009)] == [800, 1799, 80_000, 80_009]
    seams.add(Seam(2000, 90_000, 90_000))
    assert [seams.clock(offset) for offset in (1999, 2001)] == [80_999, 90_001]
    assert seams.gaps == [Seam(1000, 80_000, 1800)]


def test_without_any_the_clock_is_the_offset() -> None:
    assert Seams().clock(77) == 77


def test_what_is_written_can_be_read_again() -> None:
    seams = Seams([Seam(0, 800, 800), Seam(1000, 80_000, 1800)])
    assert Seams.parse(seams.lines(), end=1001).gaps == seams.gaps


def test_what_cannot_be_read_is_left_out() -> None:
    text = "0 8 8\nnonsense\n500 9000\n600 9000 608\n550 1 1\n700 5 9\n-1 5 5\n800 9200 9200\n900 99"
    assert Seams.parse(text, end=10_000).lines() == "0 8 8\n600 9000 608\n800 9200 9200\n"


def test_a_seam_that_no_audio_follows_is_none() -> None:
    assert Seams.parse("0 8 8\n600 9000 608\n", end=600).lines() == "0 8 8\n"


def test_of_two_seams_at_one_place_the_later_holds() -> None:
    assert Seams.parse("0 8 8\n0 16 16\n", end=600).clock(0) == 16


def test_where_a_moment_of_the_call_lies() -> None:
    seams = Seams([Seam(0, 800, 800), Seam(1000, 80_000, 1800)])
    assert [seams.offset(clock) for clock in (0, 800, 900, 1799, 1800, 79_999, 80_000, 80_005)] == [
        *(0, 0, 100, 999),
        *(1000, 1000, 1000, 1005),
    ]
    assert Seams().offset(77) == 77
