import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bridge.call import journals as module
from bridge.call.journals import Folder, Journals
from bridge.errors import BridgeError, ConfigError

N1, N2, N3, N4 = ("1" * 32, "2" * 32, "3" * 32, "4" * 32)
CALL, OTHER = "CA" + "1" * 32, "CA" + "2" * 32


def write(folder: Folder, memo: bytes) -> None:
    """Write a memo, and wait until it is there."""
    folder.write(memo)
    if folder.files is not None:
        folder.files.submit(int).result()


def left(root: Path, node: str, *call_sids: str) -> list[Folder]:
    """Calls of a process that is no more."""
    with Journals(root, node) as journals:
        folders = [journals.folder(call_sid) for call_sid in call_sids]
        for folder in folders:
            write(folder, folder.call_sid.encode())
            journal = folder.journal("inbound")
            journal.append(b"audio")
            journal.close(delete=False)
    return folders


def test_a_folder_keeps_a_memo_and_knows_its_tracks(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as journals:
        folder = journals.folder(CALL)
        assert (folder.call_sid, folder.read(), folder.tracks()) == (CALL, b"", [])
        assert folder.id != journals.folder(CALL).id
        write(folder, b"first")
        write(folder, b"second")
        folder.journal("outbound").append(b"audio")
        journals.files.submit(int).result()
        assert (folder.read(), folder.tracks()) == (b"second", ["outbound"])
        assert (folder.path / "memo").stat().st_mode & 0o777 == 0o600
        assert Folder(folder.path).id == folder.id
        folder.discard()
        folder.discard()  # once more does no harm
        assert not folder.path.exists()
    assert not list(tmp_path.iterdir())


def test_what_a_process_left_is_taken_over_once(tmp_path: Path) -> None:
    was = left(tmp_path, N1, CALL, OTHER)
    assert (tmp_path / N1).exists()
    with Journals(tmp_path, N2) as second, Journals(tmp_path, N3) as third:
        adopted = second.adopt()
        assert [(folder.call_sid, folder.id) for folder in adopted] == sorted(
            (folder.call_sid, folder.id) for folder in was
        )
        assert all(folder.path.parent.name == N2 for folder in adopted)
        assert adopted[0].read() == CALL.encode()
        assert adopted[0].journal("inbound").end == 5
        assert not (tmp_path / N1).exists()
        assert third.adopt() == []
    with Journals(tmp_path, N4) as fourth:
        assert len(fourth.adopt()) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [N4]


def test_a_living_process_keeps_its_calls(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as first:
        write(first.folder(CALL), b"memo")
        with Journals(tmp_path, N2) as second:
            assert second.adopt() == []
        assert len(list((tmp_path / N1).glob("CA*"))) == 1


HOLDER = """
import sys, time
from pathlib import Path
from bridge.call.journals import Journals
with Journals(Path(sys.argv[1]), "1" * 32) as journals:
    journals.folder(sys.argv[2]).write(b"memo")
    journals.files.submit(int).result()
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_has_left_its_calls_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path), CALL]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, Journals(tmp_path, N2) as journals:
        assert process.stdout is not None
        process.stdout.readline()
        assert journals.adopt() == []
        process.kill()
        process.wait()
        assert [folder.call_sid for folder in journals.adopt()] == [CALL]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "CA1.12345678" / "inbound").mkdir(parents=True)
    left(tmp_path, N1, CALL)
    (tmp_path / N1 / "notes.txt").write_text("somebody's")
    (tmp_path / N1 / "CA3").write_text("a file")
    with Journals(tmp_path, N2) as journals:
        assert [folder.call_sid for folder in journals.adopt()] == [CALL]
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"CA1.12345678", "file", "lost+found", N1, N2}
    assert sorted(path.name for path in (tmp_path / N1).iterdir()) == ["CA3", "lock", "notes.txt"]


def test_a_directory_that_was_taken_for_a_dead_ones_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    robbed: list[int] = []

    def rob(lock: int, how: int) -> None:
        if not robbed:
            robbed.append(lock)
            (tmp_path / N1 / "lock").unlink()
            (tmp_path / N1).rmdir()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", rob)
    with Journals(tmp_path, N1) as journals:
        assert robbed
        write(journals.folder(CALL), b"memo")
        with Journals(tmp_path, N2) as other:
            assert other.adopt() == []


def test_a_root_that_is_none_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    for root in (blocked, blocked / "journal"):
        with pytest.raises(ConfigError, match=r"Audio cannot be kept in .*journal\.path"), Journals(root, N1):
            pass


def test_a_disk_that_refuses_costs_recovery_and_not_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with Journals(tmp_path / "journal", N1) as journals:
        folder = journals.folder(CALL)
        write(folder, b"memo")
        journal = folder.journal("inbound")
        journal.append(b"audio")
        assert journal.end == 5
        assert (folder.read(), folder.tracks(), journals.adopt()) == (b"", [], [])
        assert not journals.erase(CALL)


def test_one_directory_that_refuses_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left(tmp_path, N1, CALL)
    left(tmp_path, N2, OTHER)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.parent.name == N1:
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with Journals(tmp_path, N3) as journals:
        assert [folder.call_sid for folder in journals.adopt()] == [OTHER]


def test_one_call_that_cannot_be_taken_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    left(tmp_path, N1, CALL, OTHER)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.startswith(CALL):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with Journals(tmp_path, N3) as journals:
        assert [folder.call_sid for folder in journals.adopt()] == [OTHER]
    assert "Permission denied" in capfd.readouterr().out
    assert [path.name.partition(".")[0] for path in (tmp_path / N1).glob("CA*")] == [CALL]


@pytest.mark.parametrize("why", [errno.EACCES, errno.EMFILE])
def test_a_lock_that_cannot_be_tried_is_not_taken_for_a_living_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], why: int
) -> None:
    left(tmp_path, N1, CALL)
    left(tmp_path, N2, OTHER)
    locked = module._locked

    def refuse(directory: Path) -> int:
        if directory.name == N1:
            raise OSError(why, os.strerror(why))
        return locked(directory)

    with Journals(tmp_path, N3) as journals:
        monkeypatch.setattr(module, "_locked", refuse)
        assert [folder.call_sid for folder in journals.adopt()] == [OTHER]
    assert os.strerror(why) in capfd.readouterr().out


def test_a_memo_that_cannot_be_read_now_is_not_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = left(tmp_path, N1, CALL)

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        folder.read()


def test_where_the_machine_does_not_say_which_run_it_is_nothing_is_assumed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    boot = module.boot.__wrapped__
    (tmp_path / "id").write_text("b1\n")
    monkeypatch.setattr(module, "BOOT", tmp_path / "id")
    assert boot() == "b1"
    monkeypatch.setattr(module, "BOOT", tmp_path / "none")
    assert boot() == ""


def test_erasing_removes_a_calls_audio_of_every_process_and_no_other_calls(tmp_path: Path) -> None:
    left(tmp_path, N1, CALL, OTHER)
    with Journals(tmp_path, N2) as journals:
        write(journals.folder(CALL), b"memo")
        write(journals.folder(CALL + "3"), b"memo")
        assert journals.erase(CALL)
        kept = {path.name.partition(".")[0] for path in tmp_path.glob("*/CA*")}
        assert kept == {OTHER, CALL + "3"}
        assert not journals.erase(CALL)
    assert not Journals(tmp_path / "nowhere", N1).erase(CALL)


def test_two_may_erase_a_call_at_the_same_time(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as journals:
        folder = journals.folder(CALL)
        for track in range(40):
            directory = folder.path / str(track)
            directory.mkdir(parents=True)
            for segment in range(20):
                (directory / str(segment)).touch()
        failed: list[BridgeError] = []
        start = threading.Barrier(4)

        def erase() -> None:
            start.wait()
            try:
                journals.erase(CALL)
            except BridgeError as error:
                failed.append(error)

        threads = [threading.Thread(target=erase) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        assert not folder.path.exists()


def test_audio_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left(tmp_path, N1, CALL)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(BridgeError, match=rf"{CALL}\.\w+ could not be removed \(Permission denied\)"):
        Journals(tmp_path, N2).erase(CALL)


def test_the_lock_is_not_inherited(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as journals:
        assert journals._lock is not None
        assert not os.get_inheritable(journals._lock)
        assert module.LOCK in os.listdir(tmp_path / N1)  # noqa: PTH208 - names alone


def test_what_lies_in_the_own_directory_is_found_again(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as journals:
        folder = journals.folder(CALL)
        assert journals.own() == []
        write(folder, b"memo")
        (tmp_path / N1 / "something").mkdir()
        assert [found.id for found in journals.own()] == [folder.id]
    assert Journals(tmp_path, N1).own() == []


def test_a_track_is_cut_where_another_process_goes_on(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as journals:
        folder = journals.folder(CALL)
        journal = folder.journal("inbound")
        journal.seam(4000)
        journal.append(b"x" * 800)
        journal.close(delete=False)
        assert folder.begin("inbound") == 4000
        folder.cut("inbound", 4100)
        assert folder.journal("inbound").end == 100


def test_whose_audio_is_on_this_machine_is_known_whoever_has_it(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as first, Journals(tmp_path, N2) as second:
        folder = first.folder(CALL)
        assert second.hold({CALL: folder.id}) == []
        write(folder, b"memo")
        assert second.hold({CALL: folder.id}) == first.hold({CALL: folder.id}) == [CALL]
        assert second.hold({CALL: "another"}) == []


def test_the_first_memo_is_there_before_any_audio(tmp_path: Path) -> None:
    with Journals(tmp_path, N1) as journals:
        go_on = threading.Event()
        journals.files.submit(go_on.wait)  # the disk lets us wait
        folder = journals.folder(CALL)
        folder.write(b"first")
        assert folder.read() == b"first"
        folder.write(b"second")
        assert folder.read() == b"first"
        go_on.set()
    assert folder.read() == b"second"
