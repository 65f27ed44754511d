import errno
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.audio import journal as module
from bridge.audio import remains, storage
from bridge.audio.journal import Journal, Unreadable
from bridge.audio.remains import ENDS, SEGMENT


def read(journal: Journal, offset: int, count: int) -> bytes:
    return journal.read(offset, count)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "track")


def pattern(count: int) -> bytes:
    return np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8).tobytes()


def test_what_goes_in_comes_out_across_segments(journal: Journal) -> None:
    audio = pattern(3 * SEGMENT + 77)
    for start in range(0, len(audio), 160):
        journal.append(audio[start : start + 160])
    assert journal.end == len(audio)
    assert read(journal, SEGMENT - 10, 300) == audio[SEGMENT - 10 : SEGMENT + 290]
    assert read(journal, 0, len(audio)) == audio
    journal.close(delete=True)


def test_before_the_start_there_is_silence(journal: Journal) -> None:
    journal.append(b"abc")
    assert read(journal, -2, 5) == b"\xff\xffabc"
    assert [read(journal, offset, 0) for offset in (-1, 0, 3)] == [b"", b"", b""]
    assert read(journal, -3 * SEGMENT, 3 * SEGMENT + 3) == b"\xff" * 3 * SEGMENT + b"abc"
    assert read(Journal(journal._directory.with_name("empty")), 0, 0) == b""
    journal.close(delete=True)


def test_memory_is_bounded_by_three_segments(journal: Journal) -> None:
    journal.append(pattern(20 * SEGMENT))
    for offset in range(0, 20 * SEGMENT, SEGMENT // 2):
        read(journal, offset, 256)
        assert len(journal._segments) <= 3
    journal.close(delete=True)


def test_release_deletes_whole_segments_only(journal: Journal, tmp_path: Path) -> None:
    audio = pattern(4 * SEGMENT)
    journal.append(audio)
    journal.release(2 * SEGMENT + 5)
    assert journal.start == 2 * SEGMENT
    assert sorted(p.name for p in (tmp_path / "track").glob("*.ulaw")) == ["000002.ulaw", "000003.ulaw"]
    assert read(journal, 2 * SEGMENT, 100) == audio[2 * SEGMENT : 2 * SEGMENT + 100]
    journal.release(10**9)
    assert journal.start <= journal.end
    journal.close(delete=True)


def test_files_hold_what_was_appended_without_closing(journal: Journal, tmp_path: Path) -> None:
    audio = pattern(SEGMENT + 100)
    journal.append(audio)
    files = tmp_path / "track"
    end, received, _ = ENDS.unpack((files / "ends").read_bytes())
    assert received == end == len(audio)
    content = (files / "000000.ulaw").read_bytes() + (files / "000001.ulaw").read_bytes()
    assert content[:end] == audio
    assert (files / "000000.ulaw").stat().st_mode & 0o777 == 0o600
    journal.close(delete=False)
    assert (files / "000001.ulaw").exists()


def test_close_with_delete_leaves_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.seam(0)
    journal.append(pattern(SEGMENT * 2 + 5))
    journal.release(SEGMENT + 1)
    journal.close(delete=True)
    assert not (tmp_path / "track").exists()


def test_seams_place_offsets_on_the_calls_clock(journal: Journal, tmp_path: Path) -> None:
    journal.seam(800)
    journal.append(b"x" * 1000)
    journal.seam(80_000)
    journal.append(b"x" * 10)
    assert [journal.clock(o) for o in (0, 999, 1000, 1009)] == [800, 1799, 80_000, 80_009]
    assert (tmp_path / "track" / "seams").read_text() == "0 800 800\n1000 80000 80000\n"
    journal.close(delete=True)


def test_beyond_the_limit_the_oldest_audio_goes(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 3 * SEGMENT)
    audio = pattern(5 * SEGMENT + 10)
    for start in range(0, len(audio), 4000):
        journal.append(audio[start : start + 4000])
    assert journal.start > 0
    assert journal.end - journal.start <= 3 * SEGMENT
    assert read(journal, journal.start, 100) == audio[journal.start : journal.start + 100]
    journal.close(delete=True)


def test_a_disk_that_refuses_leaves_the_audio_in_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    journal = Journal(blocked / "track")
    audio = pattern(2 * SEGMENT + 9)
    journal.seam(0)
    journal.append(audio)
    assert read(journal, 5, 2 * SEGMENT) == audio[5 : 5 + 2 * SEGMENT]
    journal.release(SEGMENT)
    journal.close(delete=True)


def test_a_disk_that_fills_up_is_noticed_before_it_is_written_to(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal.append(pattern(SEGMENT))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    journal.append(b"kept in memory")
    assert read(journal, SEGMENT, 14) == b"kept in memory"
    assert not (tmp_path / "track" / "000001.ulaw").exists()
    journal.close(delete=True)


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 3 * SEGMENT // 2), max_size=6),
    reads=st.lists(st.integers(0, 1 << 20), max_size=8),
)
def test_any_cut_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], reads: list[int]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journals") / "track")
    audio = pattern(sum(cuts))
    done = 0
    for cut in cuts:
        journal.append(audio[done : done + cut])
        done += cut
    for offset in reads:
        if offset < len(audio):
            assert read(journal, offset, min(400, len(audio) - offset)) == audio[offset : offset + 400]
    journal.close(delete=True)


def test_a_segment_that_cannot_be_read_is_named_and_can_be_given_up(journal: Journal, tmp_path: Path) -> None:
    audio = pattern(5 * SEGMENT)
    journal.append(audio)
    (tmp_path / "track" / "000001.ulaw").write_bytes(b"short")
    with pytest.raises(Unreadable, match="segment 1") as failed:
        read(journal, SEGMENT - 10, 20)
    assert journal.give_up(failed.value.segment) == (SEGMENT, 2 * SEGMENT)
    assert read(journal, SEGMENT - 10, 20) == audio[SEGMENT - 10 : SEGMENT] + b"\xff" * 10
    assert read(journal, 2 * SEGMENT - 1, 5) == b"\xff" + audio[2 * SEGMENT : 2 * SEGMENT + 4]
    journal.close(delete=True)
    assert not (tmp_path / "track").exists()


def test_what_an_earlier_process_left_is_gone_on_with(journal: Journal, tmp_path: Path) -> None:
    audio = pattern(3 * SEGMENT + 77)
    journal.seam(800)
    journal.append(audio[: 2 * SEGMENT])
    journal.release(SEGMENT)
    journal.seam(2_000_000, missing_from=1_900_000)
    journal.append(audio[2 * SEGMENT :])
    journal.fill(8000)
    reopened = Journal(tmp_path / "track")  # nothing was closed: the process was killed
    assert (reopened.start, reopened.end) == (SEGMENT, len(audio) + 8000)
    assert (reopened.received, reopened.lost) == (len(audio), [])
    assert read(reopened, SEGMENT, 2 * SEGMENT + 77) == audio[SEGMENT:]
    assert reopened.clock(SEGMENT) == 800 + SEGMENT
    assert reopened.clock(reopened.received) == 2_000_000 + SEGMENT + 77
    assert [gap.missing_from for gap in reopened.seams.gaps] == [1_900_000]
    more = pattern(SEGMENT)
    reopened.append(more)
    assert read(reopened, len(audio) + 8000, SEGMENT) == more
    again = Journal(tmp_path / "track")
    assert read(again, SEGMENT, again.end - SEGMENT) == audio[SEGMENT:] + b"\xff" * 8000 + more
    again.close(delete=True)
    assert not (tmp_path / "track").exists()


def test_a_journal_in_which_all_was_finalised_is_gone_on_with(journal: Journal, tmp_path: Path) -> None:
    journal.append(pattern(SEGMENT))
    journal.release(SEGMENT)
    reopened = Journal(tmp_path / "track")
    assert (reopened.start, reopened.end, reopened.lost) == (SEGMENT, SEGMENT, [])
    reopened.append(b"more")
    assert read(reopened, SEGMENT, 4) == b"more"
    reopened.close(delete=True)


def test_a_disk_without_room_still_shows_what_was_there(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    audio = pattern(SEGMENT + 10)
    journal.append(audio)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    reopened = Journal(tmp_path / "track")
    reopened.append(pattern(SEGMENT))
    assert read(reopened, 0, 2 * SEGMENT + 10) == audio + pattern(SEGMENT)
    reopened.close(delete=True)
    assert not (tmp_path / "track").exists()


def test_a_last_segment_that_cannot_be_opened_is_gone_on_behind(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal.append(pattern(SEGMENT + 10))
    mapped = storage.mapped

    def refusing(path: Path, size: int) -> object:
        if path.name == "000001.ulaw":
            raise ValueError("mmap length is greater than file size")
        return mapped(path, size)

    monkeypatch.setattr(storage, "mapped", refusing)
    reopened = Journal(tmp_path / "track")
    assert not reopened.unopened
    assert (reopened.end, reopened.lost) == (2 * SEGMENT, [(SEGMENT, SEGMENT + 10)])
    reopened.append(b"more")
    assert read(reopened, SEGMENT, 10) == b"\xff" * 10
    assert read(reopened, 2 * SEGMENT, 4) == b"more"
    reopened.close(delete=True)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", ["bridge.audio.remains.os.scandir", "bridge.audio.storage.mapped"])
def test_audio_that_cannot_be_opened_now_is_neither_empty_nor_lost(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, call: str
) -> None:
    audio = pattern(SEGMENT + 10)
    journal.append(audio)

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(call, refuse)
        unopened = Journal(tmp_path / "track")
    assert (unopened.unopened, unopened.end, unopened.lost) == (True, 0, [])
    unopened.append(b"meanwhile" * SEGMENT)
    assert read(unopened, 0, 9) == b"meanwhile"
    unopened.release(5 * SEGMENT)
    unopened.close(delete=True)
    again = Journal(tmp_path / "track")
    assert (again.unopened, read(again, 0, again.end)) == (False, audio)


def test_a_new_journal_that_the_disk_refuses_has_nothing_unopened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(storage, "mapped", refuse)
    journal = Journal(tmp_path / "track")
    journal.append(b"audio")
    assert (journal.unopened, read(journal, 0, 5)) == (False, b"audio")


def test_what_was_released_is_known_to_the_next_process_and_not_what_the_limit_took(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    journal.append(pattern(4 * SEGMENT))
    journal.release(SEGMENT - 1)
    assert Journal(tmp_path / "track").settled == 0
    journal.release(2 * SEGMENT + 7)
    assert Journal(tmp_path / "track").settled == 2 * SEGMENT + 7
    journal.untold = 1
    journal.release(3 * SEGMENT)
    again = Journal(tmp_path / "track")
    assert (again.start, again.settled) == (3 * SEGMENT, 2 * SEGMENT + 7)
    monkeypatch.setattr(module, "LIMIT", 2 * SEGMENT)
    again.append(pattern(4 * SEGMENT))
    last = Journal(tmp_path / "track")
    assert last.start > 3 * SEGMENT
    assert last.settled == 2 * SEGMENT + 7
    last.close(delete=True)
    assert not (tmp_path / "track").exists()


WRITER = """
import itertools, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from bridge.audio.journal import Journal
journal = Journal(Path(sys.argv[1]), ThreadPoolExecutor(1) if sys.argv[2:] else None)
print("ready", flush=True)
for number in itertools.count():
    journal.append(number.to_bytes(2, "little") * 80)
    journal.release(journal.end - 200_000)
"""
"""Appends frames of 160 bytes, each full of its number, as fast as it can."""


@pytest.mark.parametrize("thread", [[], ["thread"]], ids=["at once", "in a thread"])
def test_a_killed_process_leaves_only_whole_appends(tmp_path: Path, thread: list[str]) -> None:
    directory = tmp_path / "track"
    for kill in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(directory), *thread], stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(0.02 * kill)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        journal = Journal(directory)
        assert journal.lost == []
        assert journal.end - journal.received in {0, 160}  # killed between its two stores
        assert journal.end % 160 == 0
        kept = read(journal, journal.start, journal.end - journal.start)[-journal.start % 160 :]
        numbers = np.frombuffer(kept, "<u2").reshape(-1, 80)
        assert (numbers == numbers[:, :1]).all()
        assert (np.diff(numbers[:, 0].astype(int)) % 65536 == 1).all()
        journal.close(delete=True)


class Slow(ThreadPoolExecutor):
    """One thread, that does nothing until it is let."""

    def __init__(self) -> None:
        super().__init__(1)
        self.go = threading.Event()
        self.submit(self.go.wait)


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_files_are_made_before_they_are_needed_and_removed_by_somebody_else(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as files:
        journal = Journal(tmp_path / "track", files)
        audio = pattern(4 * SEGMENT)
        for begin in range(0, len(audio), 160):
            journal.append(audio[begin : begin + 160])
        files.submit(int).result()
        assert names(tmp_path / "track") == [f"{n:06d}.ulaw" for n in range(5)] + ["ends"]
        assert read(journal, 0, len(audio)) == audio
        journal.release(3 * SEGMENT)
        files.submit(int).result()
        assert names(tmp_path / "track") == ["000003.ulaw", "000004.ulaw", "ends"]
        found = remains.read(tmp_path / "track")
        assert (found.start, found.end, found.lost) == (3 * SEGMENT, 4 * SEGMENT, [])
        journal.close(delete=True)
    assert not (tmp_path / "track").exists()


def test_a_disk_that_keeps_others_waiting_does_not_keep_the_audio_waiting(tmp_path: Path) -> None:
    with Slow() as files:
        journal = Journal(tmp_path / "track", files)
        audio = pattern(3 * SEGMENT + 10)
        journal.append(audio)
        journal.release(2 * SEGMENT)
        assert read(journal, 2 * SEGMENT, SEGMENT + 10) == audio[2 * SEGMENT :]
        assert "000000.ulaw" in names(tmp_path / "track")
        files.go.set()
        files.submit(int).result()
        assert names(tmp_path / "track") == ["000002.ulaw", "000003.ulaw", "000004.ulaw", "ends"]
        journal.close(delete=False)
    assert names(tmp_path / "track") == ["000002.ulaw", "000003.ulaw", "ends"]
    again = Journal(tmp_path / "track")
    assert read(again, 2 * SEGMENT, SEGMENT + 10) == audio[2 * SEGMENT :]
    assert again.lost == []


def test_what_was_made_too_early_is_removed_with_the_rest(tmp_path: Path) -> None:
    with Slow() as files:
        journal = Journal(tmp_path / "track", files)
        journal.append(b"x" * 10)
        journal.close(delete=True)
        files.go.set()
    assert not (tmp_path / "track").exists()


def test_a_segment_that_could_not_be_made_is_tried_once_more_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor(1) as files:
        journal = Journal(tmp_path / "track", files)
        with monkeypatch.context() as full:
            full.setattr(os, "posix_fallocate", no_space)
            files.submit(int).result()
            journal._next = files.submit(storage.made, tmp_path / "track" / "000000.ulaw")
            assert isinstance(journal._next.exception(), OSError)
        journal.append(b"x" * 10)
        assert "000000.ulaw" in names(tmp_path / "track")
        journal.close(delete=True)


def test_a_segment_that_cannot_be_made_in_time_lives_in_memory(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as files:
        journal = Journal(tmp_path / "track", files)
        journal.append(b"x" * 10)
        files.submit(int).result()
        (tmp_path / "track" / "000002.ulaw").mkdir()
        audio = pattern(3 * SEGMENT)
        journal.append(audio)
        assert read(journal, 10, len(audio)) == audio
        (tmp_path / "track" / "000002.ulaw").rmdir()
        journal.close(delete=True)
    assert not (tmp_path / "track").exists()
