import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio.journal import Journal
from bridge.audio.remains import ENDS, SEGMENT, cut, read

AUDIO = b"\x01"
WHOLE = 3 * SEGMENT + 1000


@pytest.fixture
def track(tmp_path: Path) -> Path:
    """Three segments and a part of the fourth, of bytes 1."""
    journal = Journal(tmp_path / "track")
    journal.seam(0)
    journal.append(AUDIO * WHOLE)
    return tmp_path / "track"


def heard(track: Path) -> tuple[Journal, bytes]:
    """The journal opened again, and all that can be read of it; it still takes audio."""
    journal = Journal(track)
    journal.append(b"\x02" * 10)
    audio = journal.read(journal.start, journal.end - journal.start)
    assert audio[-10:] == b"\x02" * 10
    return journal, audio[:-10]


def test_whole_remains_lose_nothing(track: Path) -> None:
    found = read(track)
    assert (found.start, found.end, found.received, found.lost) == (0, WHOLE, WHOLE, [])
    journal, audio = heard(track)
    assert audio == AUDIO * WHOLE
    journal.close(delete=True)


@pytest.mark.parametrize("content", [None, b"", b"1234567", ENDS.pack(1 << 60, 1, 0), ENDS.pack(5, 5, 0)])
def test_without_a_usable_end_the_audio_itself_says_where_it_ends(track: Path, content: bytes | None) -> None:
    (track / "ends").unlink()
    if content is not None:
        (track / "ends").write_bytes(content)
    found = read(track)
    assert (found.end, found.received, found.lost) == (WHOLE, WHOLE, [])
    journal, audio = heard(track)
    assert audio == AUDIO * WHOLE
    journal.close(delete=True)


def test_an_append_that_was_killed_between_two_segments_leaves_nothing_behind(track: Path) -> None:
    (track / "ends").write_bytes(ENDS.pack(3 * SEGMENT - 7, 3 * SEGMENT - 7, 0))
    journal, audio = heard(track)
    assert audio == AUDIO * (3 * SEGMENT - 7)
    journal.append(b"\x03" * SEGMENT)
    journal.close(delete=True)
    assert not track.exists()


def test_a_missing_segment_in_the_middle_is_named_and_silent(track: Path) -> None:
    (track / "000001.ulaw").unlink()
    journal, audio = heard(track)
    assert journal.lost == [(SEGMENT, 2 * SEGMENT)]
    assert audio == AUDIO * SEGMENT + b"\xff" * SEGMENT + b"\x01" * (SEGMENT + 1000)
    journal.close(delete=True)
    assert not track.exists()


def test_segments_that_stayed_in_memory_are_named_and_gone_on_behind(track: Path) -> None:
    (track / "000002.ulaw").unlink()
    (track / "000003.ulaw").unlink()
    journal, audio = heard(track)
    assert journal.lost == [(2 * SEGMENT, WHOLE)]
    assert journal.received == 4 * SEGMENT + 10
    assert audio == AUDIO * 2 * SEGMENT + b"\xff" * 2 * SEGMENT
    journal.close(delete=True)


def test_a_short_segment_is_used_as_far_as_it_goes(track: Path) -> None:
    os.truncate(track / "000001.ulaw", 100)
    os.truncate(track / "000003.ulaw", 400)
    journal, audio = heard(track)
    assert journal.lost == [(SEGMENT + 100, 2 * SEGMENT), (3 * SEGMENT + 400, WHOLE)]
    silence = b"\xff" * (SEGMENT - 100)
    assert audio == AUDIO * (SEGMENT + 100) + silence + b"\x01" * (SEGMENT + 400) + b"\xff" * 600
    journal.close(delete=True)


def test_an_empty_segment_is_none_and_a_long_one_is_cut(track: Path) -> None:
    os.truncate(track / "000000.ulaw", 0)
    os.truncate(track / "000001.ulaw", 2 * SEGMENT)
    journal, audio = heard(track)
    assert journal.lost == [(0, SEGMENT)]
    assert audio == b"\xff" * SEGMENT + AUDIO * (2 * SEGMENT + 1000)
    journal.close(delete=False)


def test_no_segment_at_all_is_a_loss_of_unknown_length(track: Path) -> None:
    for segment in track.glob("*.ulaw"):
        segment.unlink()
    journal, audio = heard(track)
    assert journal.lost == [(0, WHOLE)]
    assert audio == b""
    journal.close(delete=True)


@pytest.mark.parametrize("text", [b"", b"0 8", b"\xff\xfe\n", b"0 0 0\n12 \n", b"9" * 5000 + b"\n"])
def test_torn_seams_are_left_out_and_more_can_follow(track: Path, text: bytes) -> None:
    (track / "seams").write_bytes(text)
    journal = Journal(track)
    assert journal.clock(WHOLE) == WHOLE
    journal.seam(10**6)
    journal.append(b"x")
    assert Journal(track).clock(WHOLE) == 10**6
    journal.close(delete=True)


def test_many_files_are_looked_at_without_being_kept_in_mind(
    track: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

    class Entries:
        def __enter__(self) -> "map[Entry]":
            return map(Entry, (f"{number:06d}.ulaw" for number in range(10**6)))

        def __exit__(self, *_: object) -> None:
            pass

    (track / "ends").write_bytes(ENDS.pack(10**6 * SEGMENT, 10**6 * SEGMENT, 0))
    monkeypatch.setattr(os, "scandir", lambda _: Entries())
    found = read(track, limit=20 * SEGMENT)
    assert len(found.absent) == 20
    assert found.lost == [((10**6 - 20) * SEGMENT, 10**6 * SEGMENT)]


@pytest.mark.parametrize("name", ["ends", "seams", "000001.ulaw"])
def test_what_cannot_be_looked_at_now_is_not_taken_for_missing(
    track: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    os.truncate(track / "000001.ulaw", 5)
    opened = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == name:
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(OSError, match="Too many"):
        read(track)


def damages() -> st.SearchStrategy[Callable[[Path], None]]:
    names = st.sampled_from(["ends", "seams", *(f"{number:06d}.ulaw" for number in range(5))])

    def unlink(name: str) -> Callable[[Path], None]:
        return lambda track: (track / name).unlink(missing_ok=True)

    def write(name: str, content: bytes) -> Callable[[Path], None]:
        def damage(track: Path) -> None:
            (track / name).write_bytes(content)

        return damage

    def shorten(name: str, size: int) -> Callable[[Path], None]:
        return lambda track: os.truncate(track / name, size) if (track / name).exists() else None

    return st.one_of(
        st.builds(unlink, names),
        st.builds(write, names, st.binary(max_size=40).map(lambda content: content.replace(AUDIO, b""))),
        st.builds(shorten, names, st.integers(0, 2 * SEGMENT)),
    )


@settings(max_examples=150, deadline=None)
@given(harm=st.lists(damages(), max_size=6))
def test_no_damage_is_a_traceback_and_what_is_lost_is_named(
    tmp_path_factory: pytest.TempPathFactory, harm: list[Callable[[Path], None]]
) -> None:
    track = tmp_path_factory.mktemp("journals") / "track"
    whole = Journal(track)
    whole.seam(0)
    whole.append(AUDIO * WHOLE)
    for damage in harm:
        damage(track)
    journal, audio = heard(track)
    assert audio.count(AUDIO) <= WHOLE
    assert journal.start % SEGMENT == 0
    assert all(begin < end <= journal.end for begin, end in journal.lost)
    journal.seam(10**7)
    journal.close(delete=True)


@pytest.mark.parametrize("kept", [0, 100, SEGMENT, SEGMENT + 7, 2 * SEGMENT])
def test_a_journal_can_be_cut_where_another_one_begins(tmp_path: Path, kept: int) -> None:
    track = tmp_path / "track"
    whole = Journal(track)
    whole.seam(8000)
    whole.append(AUDIO * (2 * SEGMENT + 50))
    whole.close(delete=False)
    cut(track, 10**9)
    assert read(track).end == 2 * SEGMENT + 50
    cut(track, 8000 + kept)
    found = read(track)
    assert (found.end, found.received, found.lost) == (kept, kept, [])
    journal, audio = heard(track)
    assert audio == AUDIO * kept
    journal.close(delete=True)
