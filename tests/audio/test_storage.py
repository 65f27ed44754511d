import errno
from pathlib import Path

import pytest

from bridge import metrics
from bridge.audio import storage
from bridge.audio.remains import SEGMENT


def test_a_new_segment_is_whole_empty_and_for_nobody_else(tmp_path: Path) -> None:
    segment = storage.made(tmp_path / "000000.ulaw")
    assert len(segment) == SEGMENT
    assert not any(segment[:])
    assert (tmp_path / "000000.ulaw").stat().st_mode & 0o777 == 0o600
    segment[:3] = b"abc"
    assert storage.mapped(tmp_path / "000000.ulaw", 10)[:4] == b"abc\0"
    with pytest.raises(FileExistsError):
        storage.made(tmp_path / "000000.ulaw")


def test_files_and_directories_are_removed_also_those_that_are_gone(tmp_path: Path) -> None:
    directory = tmp_path / "track"
    directory.mkdir()
    (directory / "ends").touch()
    before = metrics.JOURNAL_REFUSALS._value.get()
    storage.remove(directory / "ends", directory / "seams", directory, directory)
    assert not directory.exists()
    assert metrics.JOURNAL_REFUSALS._value.get() == before


def test_what_cannot_be_removed_is_counted_and_the_rest_removed(tmp_path: Path) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    (full / "something").mkdir(parents=True)
    file.touch()
    before = metrics.JOURNAL_REFUSALS._value.get()
    storage.remove(full, file)
    assert (full.exists(), file.exists()) == (True, False)
    assert metrics.JOURNAL_REFUSALS._value.get() == before + 1


def test_a_segment_that_cannot_be_mapped_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(storage, "mapped", refuse)
    with pytest.raises(OSError, match="Cannot allocate"):
        storage.made(tmp_path / "000000.ulaw")
    assert not list(tmp_path.iterdir())
