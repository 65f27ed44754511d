import asyncio
from pathlib import Path

from bridge.call.services import Journals


def test_a_directory_that_is_not_empty_stays(tmp_path: Path) -> None:
    journals = Journals(tmp_path, "n1")
    left = journals.directory("CA1")
    left.mkdir()
    (left / "inbound").mkdir()
    journals.discard("CA1")
    assert left.exists()
    (left / "inbound").rmdir()
    journals.discard("CA1")
    assert not left.exists()
    journals.discard("CA1")  # once more does no harm


def test_two_processes_do_not_share_a_calls_directory(tmp_path: Path) -> None:
    assert Journals(tmp_path, "n1").directory("CA1") != Journals(tmp_path, "n2").directory("CA1")


def test_what_others_left_is_counted(tmp_path: Path) -> None:
    ours, theirs = Journals(tmp_path, "n1"), Journals(tmp_path, "n2")
    assert ours.left_behind() == 0
    ours.directory("CA1").mkdir()
    theirs.directory("CA1").mkdir()
    theirs.directory("CA2").mkdir()
    assert ours.left_behind() == 2


async def test_what_is_spawned_is_waited_for(tmp_path: Path) -> None:
    from tests.doubles.bridge import running  # noqa: PLC0415 - heavy, and for this test only

    done = False

    async def work() -> None:
        nonlocal done
        await asyncio.sleep(0.05)
        done = True

    async with running(tmp_path, "ws://127.0.0.1:9/websocket") as setup:
        setup.bridge._services.spawn(work())
    assert done
